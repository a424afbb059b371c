// SPDX-License-Identifier: Apache-2.0
// What has been measured, kept in a file so that a second start goes on where the first one ended: a line of
// JSON that says what is measured, and a line for each item, in their order.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "llava/measure/file_lock.hpp"
#include "llava/measure/tally.hpp"

namespace corematching::driver {

class state_file {
 public:
  /// A state that is in no file.
  state_file() = default;

  /// Opens `path`, or creates it. `identity` is an object that says what is measured: `items` items, each of
  /// `runs` runs. Whatever the file's last line lacks of its end was never measured. Throws `error` where the
  /// file is no state, one of something else, whose first differing key is named, or one that another program
  /// goes on with.
  state_file(const std::filesystem::path& path, const io::json& identity, std::size_t items,
             std::size_t runs);

  /// The runs of each item that has been measured, in the items' order.
  const std::vector<std::vector<tally>>& items() const { return items_; }

  /// Adds the runs of the next item. Throws `error` where they cannot be written.
  void add(std::vector<tally> runs);

 private:
  void read(const std::string& text, const io::json& identity, std::size_t items, std::size_t runs);

  std::filesystem::path path_;
  file_lock lock_;
  std::ofstream out_;
  std::vector<std::vector<tally>> items_;
};

}  // namespace corematching::driver

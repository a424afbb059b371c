// SPDX-License-Identifier: Apache-2.0
// A file of requests, a line each, and the file of their answers, of which some may be there already.
#pragma once

#include <cstddef>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "llava/measure/file_lock.hpp"

namespace corematching::driver {

struct request_line {
  std::string id;
  std::string_view text;  // JSON
};

class request_lines {
 public:
  /// Reads a file; lines of blanks are passed over. Throws `error` naming the line that is no JSON object
  /// with an "id" of its own.
  explicit request_lines(const std::filesystem::path& path);

  const std::vector<request_line>& all() const { return lines_; }

 private:
  io::mapped_file file_;
  std::vector<request_line> lines_;
};

/// Only one program at a time writes to it. A line is there as a whole or not at all: what a start that was
/// ended left of one is taken away.
class answer_lines {
 public:
  /// Throws `error` where the file cannot be written, or has lines that are no answers to `asked`.
  answer_lines(const std::filesystem::path& path, const request_lines& asked);

  bool has(const std::string& id) const { return ids_.contains(id); }
  std::size_t size() const { return ids_.size(); }
  /// Appends a line. May be called by any thread; throws `error` where it cannot be written.
  void add(const io::json& line);

 private:
  std::filesystem::path path_;
  file_lock lock_;
  std::set<std::string> ids_;  // that were there at the start
  std::mutex mutex_;
};

}  // namespace corematching::driver

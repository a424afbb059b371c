// SPDX-License-Identifier: Apache-2.0
// The lines of a file that may change meanwhile: it is read, not mapped, so that what is gone is an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace corematching::driver {

/// Where a line stands in its file.
struct line_place {
  std::uint64_t offset = 0;  // bytes
  std::size_t number = 1;    // counted from 1
};

/// What is behind the last line that ends, often nothing.
struct last_line {
  std::string text{};
  line_place place{};
};

/// Calls body(line, its place) for every line of an open file that ends; lines of blanks are passed over.
/// Throws `error`, naming `path`, where it is no regular file or cannot be read.
last_line for_each_line(int file, const std::filesystem::path& path,
                        const std::function<void(std::string_view, line_place)>& body);

/// Up to `size` bytes from `offset` on; fewer where the file ends. Throws `error` as above.
std::string read_at(int file, const std::filesystem::path& path, std::uint64_t offset, std::size_t size);

/// Whether a line has nothing but blanks in it.
inline bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == line.npos;
}

}  // namespace corematching::driver

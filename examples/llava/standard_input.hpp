// SPDX-License-Identifier: Apache-2.0
// "-" as the name of a file: standard input, read to its end.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::driver {

inline constexpr const char* standard_input_name = "standard input";  // in messages

/// A file of that name is "./-".
inline bool is_standard_input(const std::filesystem::path& file) {
  return file == "-";
}

/// A path that leads to what is read under the name `file`.
inline std::filesystem::path opened_as(const std::filesystem::path& file) {
  return is_standard_input(file) ? std::filesystem::path("/dev/stdin") : file;
}

/// Everything up to the end of `descriptor`, a stream of unknown length. Throws `error`, starting with
/// `name`, where it cannot be read and where it is longer than `most` bytes, of which no more are then read.
inline std::vector<std::byte> read_to_end(int descriptor, const std::string& name, std::size_t most) {
  std::vector<std::byte> bytes;
  std::size_t size = 0;
  for (;;) {
    // One byte more than is allowed tells a stream that is too long from one that just fits.
    if (size == bytes.size()) bytes.resize(std::min(std::max<std::size_t>(2 * size, 1 << 16), most + 1));
    const auto count = ::read(descriptor, bytes.data() + size, bytes.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(name, ": cannot read: ", io::errno_text(errno));
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
    require(size <= most, name, ": is longer than ", most, " bytes");
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace corematching::driver

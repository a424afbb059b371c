// SPDX-License-Identifier: Apache-2.0
// Parts of a file read into memory of the caller's, without leaving them in the page cache: for files that
// are larger than the memory they may take.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::io {

class region_file {
 public:
  /// Throws `error` naming the path and the system's reason.
  explicit region_file(std::filesystem::path path)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) fail(path_.string(), ": cannot open: ", errno_text(errno));
  }
  region_file(const region_file&) = delete;
  region_file& operator=(const region_file&) = delete;
  ~region_file() { ::close(file_); }

  /// Fills `to` with the bytes from `offset` on. Throws `error` if the file cannot be read or ends before.
  /// Several threads may read at once.
  void read(std::uint64_t offset, std::span<std::byte> to) const {
    constexpr std::size_t piece = std::size_t{4} << 20;  // of which two are on their way while one is copied
    std::uint64_t at = offset;
    const std::uint64_t end = offset + to.size();
    while (!to.empty()) {
      const std::size_t size = std::min(piece, to.size());
      advise(at, std::min<std::uint64_t>(3 * piece, end - at), POSIX_FADV_WILLNEED);
      read_all(at, to.first(size));
      advise(at, size, POSIX_FADV_DONTNEED);
      at += size;
      to = to.subspan(size);
    }
  }

 private:
  void advise(std::uint64_t offset, std::uint64_t size, int advice) const {
    static_cast<void>(::posix_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(size), advice));
  }

  void read_all(std::uint64_t offset, std::span<std::byte> to) const {
    while (!to.empty()) {
      const auto got = ::pread(file_, to.data(), to.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(path_.string(), ": cannot read at byte ", offset, ": ", errno_text(errno));
      require(got > 0, path_.string(), ": ends at byte ", offset, ", ", to.size(),
              " bytes too early: it was truncated while in use");
      to = to.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }

  std::filesystem::path path_;
  int file_;
};

}  // namespace corematching::io

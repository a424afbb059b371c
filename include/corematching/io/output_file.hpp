// SPDX-License-Identifier: Apache-2.0
// Files that appear whole or not at all: written under a temporary name in the directory of their
// destination, renamed when they are complete.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::io {

/// Throws `error` if `destination` is a device, a pipe, a directory or a link: renaming would replace it.
inline void refuse_special_file(const std::filesystem::path& destination) {
  std::error_code ignored;
  const auto status = std::filesystem::symlink_status(destination, ignored);
  require(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status), destination.string(),
          ": is not a regular file, so it is not overwritten");
}

/// A file in the making, removed unless it is committed. Every member throws `error` naming the destination
/// and the system's reason.
class output_file {
 public:
  /// Refuses special files and links.
  explicit output_file(std::filesystem::path destination) : destination_(std::move(destination)) {
    refuse_special_file(destination_);
    static std::atomic<unsigned> count{0};
    do {
      temporary_ = destination_;
      temporary_ += ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
      file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) refuse("cannot create a file beside it");
  }
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;
  ~output_file() {
    if (file_ >= 0) ::close(file_);
    if (!committed_) ::unlink(temporary_.c_str());
  }

  /// Appends.
  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto written = ::write(file_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) refuse("cannot write");
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  /// Puts the file in its place, once, as the last call.
  void commit() {
    // Some file systems report a full disk only here.
    if (::close(std::exchange(file_, -1)) != 0) refuse("cannot write");
    if (std::rename(temporary_.c_str(), destination_.c_str()) != 0) refuse("cannot rename the finished file");
    committed_ = true;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(destination_.string(), ": ", what, ": ", errno_text(errno));
  }

  std::filesystem::path destination_;
  std::filesystem::path temporary_;
  int file_ = -1;
  bool committed_ = false;
};

}  // namespace corematching::io

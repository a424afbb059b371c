// SPDX-License-Identifier: Apache-2.0
// Files that appear whole or not at all: written in the directory of their destination without a name, or
// under a temporary one where the file system knows no files without, and renamed when they are complete.
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
    if (open_without_name()) return;
    take_name([this](const char* name) {
      file_ = ::open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      return file_ >= 0;
    });
  }
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;
  ~output_file() {
    if (file_ >= 0) ::close(file_);
    if (!committed_ && !temporary_.empty()) ::unlink(temporary_.c_str());
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

  /// Writes over the beginning of what was written.
  void rewrite_start(std::span<const std::byte> bytes) {
    if (::lseek(file_, 0, SEEK_SET) < 0) refuse("cannot write");
    write(bytes);
    if (::lseek(file_, 0, SEEK_END) < 0) refuse("cannot write");
  }

  /// Puts the file in its place, once, as the last call.
  void commit() {
    if (temporary_.empty())
      take_name([this](const char* name) {
        return ::linkat(AT_FDCWD, own_link().c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
      });
    // Some file systems report a full disk only here.
    if (::close(std::exchange(file_, -1)) != 0) refuse("cannot write");
    if (std::rename(temporary_.c_str(), destination_.c_str()) != 0) refuse("cannot rename the finished file");
    committed_ = true;
  }

 private:
  // What has no name goes with the program, however that ends.
  bool open_without_name() {
#ifdef O_TMPFILE
    const auto directory = destination_.has_parent_path() ? destination_.parent_path() : ".";
    file_ = ::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (file_ >= 0 && ::access(own_link().c_str(), F_OK) == 0) return true;
    if (file_ >= 0) ::close(std::exchange(file_, -1));
#endif
    return false;
  }
  // Where the system shows the open file.
  std::string own_link() const {
    return "/proc/self/fd/" + std::to_string(file_);
  }

  // Calls create(name) with names beside the destination until it says that one was free.
  template <class Create>
  void take_name(Create create) {
    static std::atomic<unsigned> count{0};
    for (;;) {
      std::filesystem::path name = destination_;
      name += ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
      if (create(name.c_str())) {
        temporary_ = std::move(name);
        return;
      }
      if (errno != EEXIST) refuse("cannot create a file beside it");
    }
  }

  [[noreturn]] void refuse(std::string_view what) const {
    fail(destination_.string(), ": ", what, ": ", errno_text(errno));
  }

  std::filesystem::path destination_;
  std::filesystem::path temporary_;  // empty while there is no name
  int file_ = -1;
  bool committed_ = false;
};

}  // namespace corematching::io

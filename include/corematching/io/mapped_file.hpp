// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only into memory (POSIX mmap): weights are paged in when first read, never copied.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "corematching/core/error.hpp"

namespace corematching::io {

/// The text of an errno value.
inline std::string errno_text(int code) {
  return std::generic_category().message(code);
}

/// Asks for pages of a mapped file ahead of reading them; a hint and nothing more.
inline void will_need(std::span<const std::byte> mapped) {
  constexpr std::size_t part = std::size_t{128}
                               << 10;  // Linux reads as much at least for a call, or a few MB
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto before = reinterpret_cast<std::uintptr_t>(mapped.data()) % page;
  auto* const begin = const_cast<std::byte*>(mapped.data()) - before;
  const std::size_t size = before + mapped.size();
  for (std::size_t at = 0; at < size && !mapped.empty(); at += part)
    static_cast<void>(::madvise(begin + at, std::min(part, size - at), MADV_WILLNEED));
}

/// Takes the pages that lie within `mapped`, a part of a read-only mapping of a file, out of this process;
/// they come back from the file when they are read again.
inline void give_back(std::span<const std::byte> mapped) {
  // Not posix_madvise, which ignores this advice.
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(mapped.data());
  const std::uintptr_t begin = (first + page - 1) / page * page, end = (first + mapped.size()) / page * page;
  if (begin < end)
    static_cast<void>(
        ::madvise(const_cast<std::byte*>(mapped.data()) + (begin - first), end - begin, MADV_DONTNEED));
}

/// Owns one read-only mapping. The file must not be truncated while it is mapped: reading pages that no
/// longer exist raises SIGBUS, which no library can turn into an exception.
class mapped_file {
 public:
  /// Throws `error` naming the path and the system's reason if `path` is not a readable regular file.
  static mapped_file open(const std::filesystem::path& path) {
    // O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
    const descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.value < 0) fail(path.string(), ": cannot open: ", errno_text(errno));
    struct stat info {};
    if (::fstat(file.value, &info) != 0) fail(path.string(), ": cannot read its size: ", errno_text(errno));
    require(S_ISREG(info.st_mode), path.string(), ": not a regular file");
    require(static_cast<std::uintmax_t>(info.st_size) <= std::numeric_limits<std::size_t>::max(),
            path.string(), ": too large to map");
    return mapped_file(path, map(file.value, static_cast<std::size_t>(info.st_size), path),
                       static_cast<std::size_t>(info.st_size));
  }

  mapped_file(mapped_file&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}

  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  ~mapped_file() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  /// The whole file; empty for an empty file.
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

  const std::filesystem::path& path() const { return path_; }

 private:
  struct descriptor {
    int value;
    explicit descriptor(int opened) : value(opened) {}
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    ~descriptor() {
      if (value >= 0) ::close(value);
    }
  };

  mapped_file(std::filesystem::path path, void* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  // mmap refuses a length of zero, so an empty file has no mapping.
  static void* map(int file, std::size_t size, const std::filesystem::path& path) {
    if (size == 0) return nullptr;
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) fail(path.string(), ": cannot map ", size, " bytes: ", errno_text(errno));
    return data;
  }

  std::filesystem::path path_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace corematching::io

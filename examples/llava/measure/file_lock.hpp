// SPDX-License-Identifier: Apache-2.0
// A file that one program at a time writes (flock).
#pragma once

#include <filesystem>
#include <utility>

namespace corematching::driver {

/// Holds a file until it goes, or the program ends, however that happens.
class file_lock {
 public:
  /// Holds nothing.
  file_lock() = default;

  /// Creates the file where there is none. Throws `error`, naming it, where it cannot be written or another
  /// program holds it. File systems that know no locks are trusted.
  explicit file_lock(const std::filesystem::path& path);

  file_lock(file_lock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  file_lock& operator=(file_lock&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~file_lock();

  /// The held file, open for reading and writing, from its start; -1 where none is held.
  int descriptor() const { return file_; }

 private:
  int file_ = -1;
};

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/file_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::driver {

file_lock::file_lock(const std::filesystem::path& path)
    : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  require(file_ >= 0, path.string(), ": cannot be written: ", io::errno_text(errno));
  if (::flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(file_);
  fail(path.string(), ": another program that has not ended yet writes to it");
}

file_lock::~file_lock() {
  if (file_ >= 0) ::close(file_);
}

}  // namespace corematching::driver

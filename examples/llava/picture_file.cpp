// SPDX-License-Identifier: Apache-2.0
#include "llava/picture_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"
#include "llava/jpeg_codec.hpp"
#include "llava/png_codec.hpp"

namespace corematching::driver {
namespace {

/// Formats that people try, by their first 16 bytes: the message can then say what to do.
const char* other_format(const std::string& start) {
  if (start.starts_with("GIF8")) return "a GIF picture";
  if (start.starts_with("RIFF") && start.compare(8, 4, "WEBP") == 0) return "a WebP picture";
  if (start.starts_with("BM")) return "a BMP picture";
  if (start.starts_with("II*") || start.starts_with("MM")) return "a TIFF picture";
  if (start.compare(4, 4, "ftyp") == 0) return "an AVIF or HEIF picture";
  return nullptr;
}

/// A file that exists under a temporary name until `commit`, and not at all if that is never reached.
class temporary_file {
 public:
  explicit temporary_file(const std::filesystem::path& target)
      : target_(target), name_(target.string() + ".XXXXXX"), file_(::mkstemp(name_.data())) {
    if (file_ < 0) refuse("cannot be written");
  }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() {
    if (file_ >= 0) ::close(file_);
    if (!committed_) ::unlink(name_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) refuse("cannot be written");
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  void commit() {
    // mkstemp makes private files; this one gets the mode of any other new file.
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(file_, 0666 & ~mask) != 0) refuse("cannot be written");
    // Some file systems report a full disk only here.
    if (::close(std::exchange(file_, -1)) != 0) refuse("cannot be written");
    if (::rename(name_.c_str(), target_.c_str()) != 0) refuse("cannot be replaced");
    committed_ = true;
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    fail(target_.string(), ": ", what, ": ", io::errno_text(errno));
  }

  std::filesystem::path target_;
  std::string name_;
  int file_;
  bool committed_ = false;
};

}  // namespace

picture decode_picture(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  require(!bytes.empty(), name, ": the file is empty");
  if (is_png(bytes)) return decode_png(bytes, name, max_pixels);
  if (is_jpeg(bytes)) return decode_jpeg(bytes, name, max_pixels);
  std::string start(16, '\0');
  std::memcpy(start.data(), bytes.data(), std::min(bytes.size(), start.size()));
  const char* format = other_format(start);
  if (format != nullptr) fail(name, ": ", format, "; only PNG and JPEG are read");
  fail(name, ": not a PNG or JPEG picture");
}

picture read_picture(const std::filesystem::path& path) {
  const io::mapped_file file = io::mapped_file::open(path);
  return decode_picture(file.bytes(), path.string());
}

void write_png(const picture& image, const std::filesystem::path& path) {
  std::error_code ignored;
  const auto status = std::filesystem::symlink_status(path, ignored);
  // Renaming over a device, a pipe or a link would replace it.
  require(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status), path.string(),
          ": is not a regular file, so it is not overwritten");
  const std::vector<std::byte> bytes = encode_png(image);
  temporary_file file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace corematching::driver

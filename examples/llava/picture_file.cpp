// SPDX-License-Identifier: Apache-2.0
#include "llava/picture_file.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/output_file.hpp"
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
  const std::vector<std::byte> bytes = encode_png(image);
  io::output_file file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace corematching::driver

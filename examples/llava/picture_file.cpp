// SPDX-License-Identifier: Apache-2.0
#include "llava/picture_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/output_file.hpp"
#include "corematching/io/stand_in.hpp"
#include "llava/gif_codec.hpp"
#include "llava/jpeg_codec.hpp"
#include "llava/png_codec.hpp"
#include "llava/standard_input.hpp"
#include "llava/webp_codec.hpp"

namespace corematching::driver {
namespace {

struct picture_format {
  bool (*begins)(std::span<const std::byte> bytes);
  picture (*decode)(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels);
};
constexpr picture_format formats[] = {
    {is_png, decode_png}, {is_jpeg, decode_jpeg}, {is_gif, decode_gif}, {is_webp, decode_webp}};

/// Formats that people try, by their first 16 bytes: the message can then say what to do.
const char* other_format(const std::string& start) {
  if (start.starts_with("BM")) return "a BMP picture";
  if (start.starts_with("II*") || start.starts_with("MM")) return "a TIFF picture";
  if (start.compare(4, 4, "ftyp") == 0) return "an AVIF or HEIF picture";
  return nullptr;
}

}  // namespace

picture decode_picture(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  require(!bytes.empty(), name, ": the file is empty");
  for (const picture_format& format : formats)
    if (format.begins(bytes)) return format.decode(bytes, name, max_pixels);
  io::refuse_stand_in(bytes, name);
  std::string start(16, '\0');
  std::memcpy(start.data(), bytes.data(), std::min(bytes.size(), start.size()));
  const char* other = other_format(start);
  if (other != nullptr) fail(name, ": ", other, "; only PNG, JPEG, GIF and WebP are read");
  fail(name, ": not a PNG, JPEG, GIF or WebP picture");
}

picture read_picture(const std::filesystem::path& path) {
  if (is_standard_input(path)) {
    const std::string name = standard_input_name;
    return decode_picture(read_to_end(STDIN_FILENO, name, max_picture_bytes), name);
  }
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

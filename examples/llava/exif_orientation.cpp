// SPDX-License-Identifier: Apache-2.0
#include "llava/exif_orientation.hpp"

#include <libexif/exif-data.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace corematching::driver {
namespace {

/// The EXIF data as libexif wants them, which reads what fits a segment of a JPEG file.
std::vector<unsigned char> with_one_start(std::span<const std::byte> exif) {
  constexpr std::size_t longest = 0xffff;
  std::string_view rest(reinterpret_cast<const char*>(exif.data()), exif.size());
  // Some programs write it twice.
  for (int i = 0; i < 2 && rest.starts_with(exif_start); ++i) rest.remove_prefix(exif_start.size());
  std::vector<unsigned char> data(exif_start.begin(), exif_start.end());
  rest = rest.substr(0, longest - data.size());
  data.insert(data.end(), rest.begin(), rest.end());
  return data;
}

/// The first value of an entry; 0, which is no orientation, where it is no whole number.
int first_value(const ExifEntry& entry, ExifByteOrder order) {
  const auto fits = [&](std::size_t bytes) { return entry.components > 0 && entry.size >= bytes; };
  std::uint32_t value = 0;
  if ((entry.format == EXIF_FORMAT_SHORT || entry.format == EXIF_FORMAT_SSHORT) && fits(2))
    value = exif_get_short(entry.data, order);
  if ((entry.format == EXIF_FORMAT_LONG || entry.format == EXIF_FORMAT_SLONG) && fits(4))
    value = exif_get_long(entry.data, order);
  return value <= 8 ? static_cast<int>(value) : 0;
}

std::optional<int> in_exif(std::span<const std::byte> exif) {
  if (exif.empty()) return std::nullopt;
  const std::unique_ptr<ExifData, decltype(&exif_data_unref)> data(exif_data_new(), &exif_data_unref);
  require(data != nullptr, "libexif cannot be started");
  // It would add and change entries.
  exif_data_unset_option(data.get(), EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  const std::vector<unsigned char> bytes = with_one_start(exif);
  exif_data_load_data(data.get(), bytes.data(), static_cast<unsigned>(bytes.size()));
  const ExifEntry* entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr) return std::nullopt;
  return first_value(*entry, exif_data_get_byte_order(data.get()));
}

/// tiff:Orientation="6" or tiff:Orientation>6.
std::optional<int> in_xmp(std::string_view xmp) {
  constexpr std::string_view name = "tiff:Orientation";
  for (auto at = xmp.find(name); at != xmp.npos; at = xmp.find(name, at)) {
    at += name.size();
    std::string_view rest = xmp.substr(at);
    const std::size_t sign = rest.starts_with("=\"") ? 2 : rest.starts_with('>') ? 1 : 0;
    rest.remove_prefix(sign);
    if (sign > 0 && !rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

}  // namespace

int noted_orientation(std::span<const std::byte> exif, std::string_view xmp) {
  std::optional<int> noted = in_exif(exif);
  if (!noted) noted = in_xmp(xmp);
  return noted && *noted >= 1 && *noted <= 8 ? *noted : 1;
}

picture upright(picture image, int orientation) {
  if (orientation == 1) return image;
  const bool swapped = orientation >= 5;  // rows become columns
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  picture result =
      swapped ? make_picture(image.height, image.width) : make_picture(image.width, image.height);
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const int column = swapped ? y : x, row = swapped ? x : y;
      const std::uint8_t* from = image.at(from_right ? image.width - 1 - column : column,
                                          from_bottom ? image.height - 1 - row : row);
      std::copy_n(from, 3, result.at(x, y));
    }
  }
  return result;
}

}  // namespace corematching::driver

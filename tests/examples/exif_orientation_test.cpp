// SPDX-License-Identifier: Apache-2.0
#include "llava/exif_orientation.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace corematching::driver {
namespace {

using namespace std::string_literals;

int noted(std::string_view exif, std::string_view xmp = {}) {
  return noted_orientation(std::as_bytes(std::span(exif)), xmp);
}

const std::string big_endian = "MM\0*\0\0\0\x8"s, little_endian = "II*\0\x8\0\0\0"s;
const std::string six = big_endian + "\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"s;

TEST(orientation, is_read_in_both_byte_orders_with_and_without_the_start) {
  EXPECT_EQ(noted(six), 6);
  EXPECT_EQ(noted("Exif\0\0"s + six), 6);
  EXPECT_EQ(noted("Exif\0\0Exif\0\0"s + six), 6);
  EXPECT_EQ(noted(little_endian + "\1\0\x12\1\3\0\1\0\0\0\x8\0\0\0\0\0\0\0"s), 8);
}

TEST(orientation, may_be_a_long_and_one_of_several_values) {
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\4\0\0\0\1\0\0\0\5\0\0\0\0"s), 5);
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\3\0\0\0\2\0\7\0\3\0\0\0\0"s), 7);
}

TEST(orientation, is_upright_where_the_value_is_none) {
  for (const char value : {'\0', '\x9', '\xff'})
    EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\3\0\0\0\1\0"s + value + "\0\0\0\0\0\0"s), 1);
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\1\0\0\0\1\6\0\0\0\0\0\0\0"s), 1) << "a byte";
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\2\0\0\0\2"s + "6\0\0\0\0\0\0\0"s), 1) << "text";
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\3\0\0\0\0\0\6\0\0\0\0\0\0"s), 1) << "no value";
}

TEST(orientation, is_upright_where_the_data_are_damaged) {
  EXPECT_EQ(noted(""), 1);
  EXPECT_EQ(noted("Exif\0\0"s), 1);
  EXPECT_EQ(noted("XX" + six.substr(2)), 1);
  EXPECT_EQ(noted("MM\0\x2b"s + six.substr(4)), 1);
  EXPECT_EQ(noted("MM\0*\xff\xff\xff\xff"s + six.substr(8)), 1);
  for (std::size_t size = 0; size < 20; ++size) EXPECT_EQ(noted(six.substr(0, size)), 1) << size;
  EXPECT_EQ(noted(std::string(100'000, 'I')), 1);
}

TEST(orientation, is_found_before_damage_and_among_other_entries) {
  EXPECT_EQ(noted(big_endian + "\1\0"s + six.substr(10)), 6) << "256 entries are promised";
  EXPECT_EQ(noted(big_endian + "\0\2\1\x0e\0\2\xff\xff\xff\xff\0\0\0\0"s + six.substr(10)), 6)
      << "behind a text that is too long";
}

TEST(orientation, is_taken_from_xmp_where_exif_has_none) {
  EXPECT_EQ(noted("", R"(<rdf:Description tiff:Orientation="6"/>)"), 6);
  EXPECT_EQ(noted("", "<tiff:Orientation>3</tiff:Orientation>"), 3);
  EXPECT_EQ(noted("", "tiff:Orientation tiff:Orientation=\"x tiff:Orientation=\"8\""), 8);
  EXPECT_EQ(noted(six, R"(tiff:Orientation="3")"), 6);
  EXPECT_EQ(noted(big_endian + "\0\1\1\x12\0\3\0\0\0\1\0\x9\0\0\0\0\0\0"s, R"(tiff:Orientation="3")"), 1);
  for (const char* text : {"", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation='6'",
                           "tiff:Orientation=\"9\"", "tiff:Orientation=\"0\"", "Orientation=\"6\""})
    EXPECT_EQ(noted("", text), 1) << text;
}

/// The first sample of each pixel, row by row.
std::string letters_of(const picture& image) {
  std::string text;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) text += static_cast<char>(*image.at(x, y));
    text += '\n';
  }
  return text;
}

TEST(orientation, turns_and_mirrors_pictures) {
  picture image = make_picture(3, 2);
  for (std::size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<std::uint8_t>('a' + i / 3);
  const std::vector<const char*> seen{"abc\ndef\n",   "cba\nfed\n",   "fed\ncba\n",   "def\nabc\n",
                                      "ad\nbe\ncf\n", "da\neb\nfc\n", "fc\neb\nda\n", "cf\nbe\nad\n"};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const picture turned = upright(image, orientation);
    require_valid(turned);
    EXPECT_EQ(letters_of(turned), seen[static_cast<std::size_t>(orientation - 1)]) << orientation;
  }
}

}  // namespace
}  // namespace corematching::driver

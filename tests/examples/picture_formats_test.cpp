// SPDX-License-Identifier: Apache-2.0
// GIF, WebP and pictures that say which way up they are shown, against what Pillow makes of them (see
// reference/formats_reference.py).
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "llava/picture_file.hpp"
#include "support/error_text.hpp"
#include "support/paths.hpp"
#include "support/preprocess_reference.hpp"

namespace corematching::driver {
namespace {

std::filesystem::path formats_directory() {
  return support::test_directory() / "reference/data/formats";
}

std::string stored_picture(const char* name) {
  std::ifstream file(formats_directory() / name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

picture decode(std::string_view bytes, std::int64_t max_pixels = max_picture_pixels) {
  return decode_picture(std::as_bytes(std::span(bytes)), "a", max_pixels);
}

std::string decoding_refusal(std::string_view bytes, std::int64_t max_pixels = max_picture_pixels) {
  return support::error_text([&] { decode(bytes, max_pixels); });
}

TEST(picture_formats, decode_as_pillow_does) {
  const auto document =
      io::parse_json(io::mapped_file::open(formats_directory() / "reference.json").bytes(), "reference.json");
  const auto expected = io::checkpoint::open(formats_directory() / "expected.safetensors");
  std::size_t count = 0;
  for (const io::json& entry : document.at("pictures")) {
    SCOPED_TRACE(entry.at("file"));
    const picture image = read_picture(formats_directory() / entry.at("file"));
    EXPECT_EQ(image.width, entry.at("width"));
    EXPECT_EQ(image.height, entry.at("height"));
    const picture pillow =
        test::preprocess_reference::to_picture(expected.at(entry.at("file").get<std::string>()));
    EXPECT_EQ(test::largest_difference(image, pillow), 0);
    ++count;
  }
  EXPECT_EQ(count, expected.size());
}

TEST(picture_formats, refuse_every_truncation) {
  for (const char* name : {"plain.gif", "interlaced.gif", "inside.gif", "lossy.webp", "lossy_alpha.webp",
                           "lossless.webp", "animated.webp", "exif_6.webp"}) {
    const std::string whole = stored_picture(name);
    for (std::size_t tenth = 1; tenth < 10; ++tenth) {
      const std::string text = decoding_refusal(whole.substr(0, whole.size() * tenth / 10));
      EXPECT_TRUE(text.starts_with("a: not a readable ")) << name << " " << tenth << ": " << text;
    }
  }
}

TEST(picture_formats, survive_damaged_bytes) {
  for (const auto& entry : std::filesystem::directory_iterator(formats_directory())) {
    if (entry.path().extension() == ".safetensors" || entry.path().extension() == ".json") continue;
    const std::string whole = stored_picture(entry.path().filename().c_str());
    for (std::size_t i = 0; i < whole.size(); i += 3) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
      try {
        require_valid(decode(damaged, 1'000'000));
      } catch (const error&) {
        continue;  // as good: what must not happen is a crash or a picture that is none
      }
    }
  }
}

TEST(picture_formats, read_nothing_behind_the_first_picture_of_a_gif) {
  std::string file = stored_picture("inside.gif");
  const picture whole = decode(file);
  ASSERT_EQ(file.back(), ';');
  file.pop_back();
  EXPECT_EQ(decode(file).rgb, whole.rgb);
  EXPECT_EQ(decode(file + "," + std::string(9, '\xff')).rgb, whole.rgb);
}

TEST(picture_formats, refuse_a_gif_without_a_picture) {
  EXPECT_EQ(decoding_refusal(std::string("GIF89a\1\0\1\0\0\0\0;", 14)), "a: a GIF file without a picture");
  EXPECT_EQ(decoding_refusal(std::string("GIF89a\1\0\1\0\0\0\0,\0\0\0\0\0\0\1\0\0\2\1\0\0", 26)),
            "a: not a readable GIF picture: it has no pixels");
}

TEST(picture_formats, refuse_more_pixels_than_the_limit) {
  for (const char* name : {"inside.gif", "inside_transparent.gif"}) {
    EXPECT_NO_THROW(decode(stored_picture(name), 16 * 12));
    EXPECT_EQ(decoding_refusal(stored_picture(name), 16 * 12 - 1),
              "a: 16 x 12 pixels are more than the limit of 191");
  }
  const std::string webp = stored_picture("inside.webp");
  EXPECT_NO_THROW(decode(webp, 16 * 13));
  EXPECT_EQ(decoding_refusal(webp, 16 * 13 - 1), "a: 16 x 13 pixels are more than the limit of 207");
}

TEST(picture_formats, refuse_a_canvas_that_promises_too_much) {
  std::string gif = stored_picture("inside.gif");
  gif.replace(6, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(decoding_refusal(gif), "a: 65535 x 65535 pixels are more than the limit of 178956970");
  std::string beyond = stored_picture("beyond_canvas.gif");
  const auto frame = beyond.find(std::string(",\5\0\3\0", 5));
  ASSERT_NE(frame, beyond.npos);
  beyond.replace(frame + 5, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(decoding_refusal(beyond), "a: 65540 x 65538 pixels are more than the limit of 178956970");
  std::string webp = stored_picture("inside.webp");
  webp.replace(24, 6, std::string("\xff\x7f\0\xff\x7f\0", 6));
  EXPECT_EQ(decoding_refusal(webp), "a: 32768 x 32768 pixels are more than the limit of 178956970");
}

}  // namespace
}  // namespace corematching::driver

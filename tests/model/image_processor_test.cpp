// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/picture/image_processor.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "support/preprocess_reference.hpp"

namespace corematching {
namespace {

using test::expect_resized;
using test::preprocess_reference;
using test::processor_of;

picture ramp(int width, int height) {
  picture image = make_picture(width, height);
  for (std::size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<std::uint8_t>(i * 37 % 251);
  return image;
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

TEST(image_processor, equals_pillow_in_every_sample) {
  const preprocess_reference reference;
  int compared = 0;
  for (const io::json& expectation : reference["resized"]) {
    const picture image = reference.decoded(expectation.at("picture"), expectation.at("decode"));
    if (image.rgb.empty()) continue;  // too large to be stored decoded: compared by the tests of the decoders
    expect_resized(reference, expectation, image);
    ++compared;
  }
  EXPECT_GE(compared, 100);
}

TEST(image_processor, equals_transformers_in_pixel_values) {
  const preprocess_reference reference;
  for (const io::json& expectation : reference["pixel_values"]) {
    SCOPED_TRACE(expectation.dump());
    const picture image = reference.decoded(expectation.at("picture"), expectation.at("decode"));
    ASSERT_FALSE(image.rgb.empty());
    const std::vector<float> values = processor_of(expectation)(image);
    const io::tensor& expected = reference.tensor(expectation.at("tensor"));
    ASSERT_EQ(values.size() * sizeof(float), expected.bytes.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      float value = 0;
      std::memcpy(&value, expected.bytes.data() + i * sizeof value, sizeof value);
      // Two roundings of values up to 2.7, in whichever order.
      ASSERT_NEAR(values[i], value, 1e-6f) << "at " << i;
    }
  }
}

TEST(image_processor, starts_with_the_columns_where_pillow_does) {
  EXPECT_TRUE(detail::columns_first(211, 440, 64, 133));
  EXPECT_FALSE(detail::columns_first(211, 420, 64, 127));
  EXPECT_FALSE(detail::columns_first(440, 211, 133, 64));
  EXPECT_FALSE(detail::columns_first(8, 8, 16, 16));
  EXPECT_TRUE(detail::columns_first(8, 8, 16, 7));
}

TEST(image_processor, keeps_a_picture_of_the_right_size) {
  const picture image = ramp(32, 32);
  const image_processor processor({.resize_shortest_edge = 32, .crop_height = 32, .crop_width = 32});
  EXPECT_EQ(processor.resize_and_crop(image).rgb, image.rgb);
}

TEST(image_processor, keeps_a_plain_picture_plain) {
  picture image = make_picture(777, 311);
  std::fill(image.rgb.begin(), image.rgb.end(), std::uint8_t{201});
  const picture result = image_processor().resize_and_crop(image);
  EXPECT_TRUE(std::all_of(result.rgb.begin(), result.rgb.end(), [](std::uint8_t v) { return v == 201; }));
}

TEST(image_processor, crops_a_rectangle) {
  const image_processor processor({.resize_shortest_edge = 10, .crop_height = 6, .crop_width = 14});
  const picture result = processor.resize_and_crop(ramp(10, 10));
  ASSERT_EQ(result.width, 14);
  ASSERT_EQ(result.height, 6);
  EXPECT_EQ(result.at(0, 0)[0] + result.at(13, 0)[0], 0) << "two columns of zeros on either side";
  EXPECT_EQ(result.at(2, 0)[0], ramp(10, 10).at(0, 2)[0]);
}

TEST(image_processor, pads_with_the_mean_colour) {
  const image_processor processor(
      {.resize_shortest_edge = 64, .crop_height = 64, .crop_width = 64, .fit = image_fit::pad});
  for (const picture& image : {ramp(64, 8), ramp(8, 64)}) {
    const picture result = processor.resize_and_crop(image);
    const std::vector<std::uint8_t> corner(result.at(0, 0), result.at(0, 0) + 3);
    EXPECT_EQ(corner, (std::vector<std::uint8_t>{122, 116, 104}));
    const picture inside =
        test::cut_out(result, {(64 - image.width) / 2, (64 - image.height) / 2, image.width, image.height});
    EXPECT_EQ(inside.rgb, image.rgb);
  }
}

TEST(image_processor, handles_absurd_aspects) {
  const image_processor crop;
  EXPECT_EQ(crop(ramp(1, 20000)).size(), 3u * 336 * 336);
  EXPECT_EQ(crop(ramp(20000, 1)).size(), 3u * 336 * 336);
  const image_processor pad({.fit = image_fit::pad});
  EXPECT_EQ(pad(ramp(3000, 1)).size(), 3u * 336 * 336);
  EXPECT_EQ(pad(ramp(1, 3000)).size(), 3u * 336 * 336);
}

TEST(image_processor, refuses_what_is_too_narrow) {
  const picture thread = ramp(7'000'000, 1);
  EXPECT_EQ(message_of([&] { image_processor()(thread); }),
            "a picture of 7000000 x 1 pixels is too narrow to be resized to a shortest edge of 336");
  EXPECT_EQ(message_of([&] { image_processor({.fit = image_fit::pad})(thread); }),
            "a picture of 7000000 x 1 pixels is too narrow to be padded to a square");
}

TEST(image_processor, refuses_an_empty_or_inconsistent_picture) {
  EXPECT_EQ(message_of([] { image_processor()(picture{}); }), "the picture is empty: 0 x 0 pixels");
  EXPECT_EQ(message_of([] {
              image_processor()(picture{2, 2, std::vector<std::uint8_t>(11)});
            }),
            "a picture of 2 x 2 pixels has 12 samples, not 11");
  EXPECT_EQ(message_of([] { resize_bicubic(ramp(2, 2), 0, 3); }), "cannot resize a picture to 0 x 3 pixels");
}

TEST(image_processor, refuses_absurd_options) {
  const auto construct = [](auto change) {
    image_processor_options options;
    change(options);
    return message_of([&] { image_processor{options}; });
  };
  EXPECT_EQ(construct([](auto& o) { o.resize_shortest_edge = 0; }),
            "image processor: resize_shortest_edge is 0, expected 1 to 16384");
  EXPECT_EQ(construct([](auto& o) { o.crop_height = -1; }),
            "image processor: crop_height is -1, expected 1 to 16384");
  EXPECT_EQ(construct([](auto& o) { o.crop_width = 1 << 20; }),
            "image processor: crop_width is 1048576, expected 1 to 16384");
  EXPECT_EQ(construct([](auto& o) { o.std[1] = 0; }), "image processor: std[1] is 0");
  EXPECT_EQ(construct([](auto& o) { o.mean[2] = std::numeric_limits<float>::infinity(); }),
            "image processor: mean[2] is inf");
  EXPECT_EQ(construct([](auto& o) { o.rescale = std::nan(""); }), "image processor: rescale is nan");
}

}  // namespace
}  // namespace corematching

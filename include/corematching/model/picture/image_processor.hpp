// SPDX-License-Identifier: Apache-2.0
// From a picture to the pixel values of a CLIP vision tower, as Hugging Face's CLIPImageProcessor does it
// (shortest edge resized with Pillow's bicubic, centre crop, rescale, normalise) and, with `image_fit::pad`,
// as the original LLaVA does it (padded to a square with the mean colour first). 8-bit results are identical
// to the reference.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/picture/picture.hpp"
#include "corematching/model/picture/resize.hpp"

namespace corematching {

enum class image_fit {
  crop,  // Hugging Face: what lies outside the central square is lost
  pad,   // original LLaVA: nothing is lost, bars of the mean colour are added
};

/// Defaults: LLaVA-1.5 (CLIP ViT-L/14-336).
struct image_processor_options {
  int resize_shortest_edge = 336;  // pixels
  int crop_height = 336;
  int crop_width = 336;
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
  double rescale = 1.0 / 255.0;
  image_fit fit = image_fit::crop;
};

namespace detail {

/// Sides beyond this are a misread configuration, not a vision tower.
inline constexpr int max_crop = 1 << 14;

/// A padded canvas beyond this many pixels would take longer than anyone waits.
inline constexpr std::int64_t max_canvas = std::int64_t{1} << 30;

/// A picture centred in a square of one colour: a source of `resize_window`.
class padded_picture {
 public:
  padded_picture(const picture& image, const std::array<std::uint8_t, 3>& background)
      : image_(image),
        side_(std::max(image.width, image.height)),
        line_(static_cast<std::size_t>(side_) * 3) {
    require(std::int64_t{side_} * side_ <= max_canvas, "a picture of ", image.width, " x ", image.height,
            " pixels is too narrow to be padded to a square");
    for (std::size_t i = 0; i < line_.size(); ++i) line_[i] = background[i % 3];
  }

  int width() const { return side_; }
  int height() const { return side_; }
  const std::uint8_t* row(int y) {
    const int left = (side_ - image_.width) / 2, top = (side_ - image_.height) / 2;
    if (y < top || y >= top + image_.height) return line_.data();
    if (image_.width == side_) return image_.at(0, y - top);
    std::copy_n(image_.at(0, y - top), image_.width * 3, line_.begin() + left * 3);
    return line_.data();
  }

 private:
  const picture& image_;
  int side_;
  std::vector<std::uint8_t> line_;  // background, with the picture's row in the middle of a narrow picture's
};

/// Along one axis, the part of `size` resized pixels that a centred crop keeps, and where it lands in the
/// crop.
struct centre_span {
  int from;
  int to;
  int count;
};

/// transformers' center_crop: an odd surplus is lost at the end, an odd shortage is filled at the start.
inline centre_span centre(int size, int crop) {
  if (size >= crop) return {(size - crop) / 2, 0, crop};
  return {0, (crop - size + 1) / 2, size};
}

/// Both sides scaled so that the shorter one becomes `shortest`; the longer one is rounded down.
inline picture_window scaled_size(int width, int height, int shortest) {
  const int longer = std::max(width, height), shorter = std::min(width, height);
  const double scaled = static_cast<double>(std::int64_t{shortest} * longer) / shorter;
  require(scaled <= std::numeric_limits<int>::max(), "a picture of ", width, " x ", height,
          " pixels is too narrow to be resized to a shortest edge of ", shortest);
  const int long_side = static_cast<int>(scaled);
  return width <= height ? picture_window{0, 0, shortest, long_side}
                         : picture_window{0, 0, long_side, shortest};
}

}  // namespace detail

class image_processor {
 public:
  /// Throws on sizes that are not positive or absurd, a mean that is not finite and a std that is not
  /// positive.
  explicit image_processor(const image_processor_options& options = {}) : options_(options) {
    const auto side = [](const char* name, int value) {
      require(value > 0 && value <= detail::max_crop, "image processor: ", name, " is ", value,
              ", expected 1 to ", detail::max_crop);
    };
    side("resize_shortest_edge", options.resize_shortest_edge);
    side("crop_height", options.crop_height);
    side("crop_width", options.crop_width);
    require(std::isfinite(options.rescale) && options.rescale > 0, "image processor: rescale is ",
            options.rescale);
    for (std::size_t c = 0; c < 3; ++c) {
      require(std::isfinite(options.mean[c]), "image processor: mean[", c, "] is ", options.mean[c]);
      require(std::isfinite(options.std[c]) && options.std[c] > 0, "image processor: std[", c, "] is ",
              options.std[c]);
    }
  }

  const image_processor_options& options() const { return options_; }

  /// The picture that the model sees, [crop_height, crop_width] pixels in 8 bit.
  picture resize_and_crop(const picture& image) const {
    require_valid(image);
    if (options_.fit == image_fit::pad && image.width != image.height)
      return resize_and_crop_source(detail::padded_picture(image, background()));
    return resize_and_crop_source(detail::whole_picture{image});
  }

  /// (sample * rescale - mean) / std, channels first: [3, height, width].
  std::vector<float> normalise(const picture& image) const {
    require_valid(image);
    const std::size_t pixels = image.rgb.size() / 3;
    std::vector<float> values(image.rgb.size());
    for (std::size_t c = 0; c < 3; ++c) {
      std::array<float, 256> table;
      for (std::size_t sample = 0; sample < 256; ++sample) {
        const auto rescaled = static_cast<float>(static_cast<double>(sample) * options_.rescale);
        table[sample] = (rescaled - options_.mean[c]) / options_.std[c];
      }
      for (std::size_t i = 0; i < pixels; ++i) values[c * pixels + i] = table[image.rgb[i * 3 + c]];
    }
    return values;
  }

  /// pixel_values [3, crop_height, crop_width]. Throws on an empty or inconsistent picture, and on one so
  /// narrow that its resized length is no int.
  std::vector<float> operator()(const picture& image) const { return normalise(resize_and_crop(image)); }

 private:
  /// int(255 * mean), the colour of original LLaVA's bars.
  std::array<std::uint8_t, 3> background() const {
    std::array<std::uint8_t, 3> colour;
    for (std::size_t c = 0; c < 3; ++c)
      colour[c] = static_cast<std::uint8_t>(std::clamp(options_.mean[c] * 255.0f, 0.0f, 255.0f));
    return colour;
  }

  /// Only what the crop keeps is computed, so that a very long picture costs no more than a square one.
  template <class Source>
  picture resize_and_crop_source(Source&& source) const {
    const picture_window size =
        detail::scaled_size(source.width(), source.height(), options_.resize_shortest_edge);
    const detail::centre_span x = detail::centre(size.width, options_.crop_width);
    const detail::centre_span y = detail::centre(size.height, options_.crop_height);
    const picture_window window{x.from, y.from, x.count, y.count};
    picture kept = detail::resize_window(source, size.width, size.height, window);
    if (x.count == options_.crop_width && y.count == options_.crop_height) return kept;
    picture result = make_picture(options_.crop_width, options_.crop_height);
    for (int row = 0; row < kept.height; ++row)
      std::copy_n(kept.at(0, row), static_cast<std::size_t>(kept.width) * 3, result.at(x.to, y.to + row));
    return result;
  }

  image_processor_options options_;
};

}  // namespace corematching

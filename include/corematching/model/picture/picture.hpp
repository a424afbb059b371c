// SPDX-License-Identifier: Apache-2.0
// A picture in memory: 8-bit RGB, rows from top to bottom, no padding between rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/error.hpp"

namespace corematching {

struct picture {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;  // [height, width, 3]

  /// The three samples of one pixel.
  const std::uint8_t* at(int x, int y) const { return rgb.data() + (std::ptrdiff_t{y} * width + x) * 3; }
  std::uint8_t* at(int x, int y) { return rgb.data() + (std::ptrdiff_t{y} * width + x) * 3; }
};

/// A black picture. Throws where a side is not positive.
inline picture make_picture(int width, int height) {
  require(width > 0 && height > 0, "a picture cannot be ", width, " x ", height, " pixels");
  const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  return {width, height, std::vector<std::uint8_t>(pixels * 3)};
}

/// Throws unless the sides are positive and agree with the number of samples.
inline void require_valid(const picture& image) {
  require(image.width > 0 && image.height > 0, "the picture is empty: ", image.width, " x ", image.height,
          " pixels");
  const auto pixels = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  require(image.rgb.size() == pixels * 3, "a picture of ", image.width, " x ", image.height, " pixels has ",
          pixels * 3, " samples, not ", image.rgb.size());
}

}  // namespace corematching

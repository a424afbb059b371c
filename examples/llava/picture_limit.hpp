// SPDX-License-Identifier: Apache-2.0
// What every decoder asks once it knows the sides of a picture, before it takes memory for them.
#pragma once

#include <cstdint>
#include <string>

#include "corematching/core/error.hpp"

namespace corematching::driver {

/// Of a picture that may be sound, but has too many pixels.
class picture_too_large : public error {
 public:
  using error::error;
};

/// Throws `picture_too_large`, starting with `name`, for more than `max_pixels` pixels. Sides are positive.
inline void require_few_pixels(std::int64_t width, std::int64_t height, std::int64_t max_pixels,
                               const std::string& name) {
  if (height > max_pixels / width)
    throw picture_too_large(name + ": " + std::to_string(width) + " x " + std::to_string(height) +
                            " pixels are more than the limit of " + std::to_string(max_pixels));
}

}  // namespace corematching::driver

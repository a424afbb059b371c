// SPDX-License-Identifier: Apache-2.0
// What every decoder asks once it knows the sides of a picture, before it takes memory for them.
#pragma once

#include <cstdint>
#include <string>

#include "corematching/core/error.hpp"

namespace corematching::driver {

/// Throws `error`, starting with `name`, for more than `max_pixels` pixels. Sides are positive.
inline void require_few_pixels(std::int64_t width, std::int64_t height, std::int64_t max_pixels,
                               const std::string& name) {
  require(height <= max_pixels / width, name, ": ", width, " x ", height,
          " pixels are more than the limit of ", max_pixels);
}

}  // namespace corematching::driver

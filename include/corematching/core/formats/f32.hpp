// SPDX-License-Identifier: Apache-2.0
// IEEE 754 binary32.
#pragma once

#include <limits>

#include "corematching/core/formats/traits.hpp"

namespace corematching {

constexpr float to_float(float value) {
  return value;
}

template <>
struct format_traits<float> : element_traits<float> {
  static constexpr const char* name = "f32";
  static constexpr float largest = std::numeric_limits<float>::max();
};

}  // namespace corematching

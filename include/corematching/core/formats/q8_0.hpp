// SPDX-License-Identifier: Apache-2.0
// ggml's q8_0: a quant is a byte with sign.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q8_0 {
  static constexpr index quant_bytes = block_size;
  static constexpr int quant_offset = 0;
  static constexpr int largest_quant = 127;

  /// q = round(x / d), d = max |x| / 127
  static f16 quantise(const float* x, std::uint8_t* quants) {
    float largest = 0;
    for (index i = 0; i < block_size; ++i) largest = std::max(largest, std::abs(x[i]));
    const float scale = largest / 127.0f;
    const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    for (index i = 0; i < block_size; ++i)
      quants[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(nearest(x[i] * inverse)));
    return to_f16(scale);
  }

  /// x = d q
  static void widen(const std::uint8_t* quants, float scale, float* x) {
    for (index i = 0; i < block_size; ++i)
      x[i] = scale * static_cast<float>(static_cast<std::int8_t>(quants[i]));
  }

 private:
  // std::round() of a value of small magnitude, without the call that it is. What is added is the float below
  // 0.5: with 0.5 itself, the float below 0.5 would become 1.
  static int nearest(float value) { return static_cast<int>(value + std::copysign(0x1.fffffep-2f, value)); }
};

template <>
struct format_traits<q8_0> : grouped_blocks<q8_0> {
  static constexpr const char* name = "q8_0";
};

}  // namespace corematching

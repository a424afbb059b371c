// SPDX-License-Identifier: Apache-2.0
// ggml's q4_0: byte i of a block holds quant i in its low half and quant i + 16 in its high half, each 8 too
// large.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "corematching/core/config.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q4_0 {
  static constexpr index quant_bytes = block_size / 2;
  static constexpr int quant_offset = 8;
  static constexpr int largest_quant = 8;

  /// d = (the x of largest magnitude) / -8, so that it becomes quant 0; q = min(15, floor(x / d + 8.5))
  static f16 quantise(const float* x, std::uint8_t* quants) {
    float extreme = 0;
    for (index i = 0; i < block_size; ++i)
      if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
    const float scale = extreme / -8.0f;
    const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    float multiples[block_size];
    for (index i = 0; i < block_size; ++i) multiples[i] = x[i] * inverse;
    COREMATCHING_ROUND(multiples);
    const auto quant = [&](index i) {
      return static_cast<std::uint8_t>(std::min(15, static_cast<int>(multiples[i] + 8.5f)));
    };
    for (index i = 0; i < quant_bytes; ++i)
      quants[i] = static_cast<std::uint8_t>(quant(i) | quant(i + quant_bytes) << 4);
    return to_f16(scale);
  }

  /// x = d (q - 8)
  static void widen(const std::uint8_t* quants, float scale, float* x) {
    for (index i = 0; i < quant_bytes; ++i) {
      x[i] = scale * static_cast<float>((quants[i] & 15) - quant_offset);
      x[i + quant_bytes] = scale * static_cast<float>((quants[i] >> 4) - quant_offset);
    }
  }
};

template <>
struct format_traits<q4_0> : grouped_blocks<q4_0> {
  static constexpr const char* name = "q4_0";
};

}  // namespace corematching

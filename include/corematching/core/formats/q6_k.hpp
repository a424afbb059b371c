// SPDX-License-Identifier: Apache-2.0
// ggml's q6_k, as files of GGUF store it: blocks of 256 elements in 16 groups of 16. A group has a quant of
// six bits for each element, stored 32 larger, and a scale of eight bits with sign, a multiple of the block's
// own:
//   x = (d scale) q
// A block is 128 bytes with the lower four bits of quants, 64 with the upper two, 16 scales and d, a
// binary16. Both kinds of bits stand half by half of the block, whose 128 elements are four pieces of 32: in
// the first 32 bytes the lower bits of pieces 0 and 2, in the next those of 1 and 3, and in the 32 bytes of
// upper bits those of all four, from the lowest on.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q6_k : super_blocks<16, false> {
  static constexpr int quant_offset = 32;

  /// A block, as it is stored.
  struct stored {
    std::uint8_t lower_bits[2][2][32];
    std::uint8_t upper_bits[2][32];
    std::int8_t scales[groups];
    f16 scale;
  };

  static bool is_finite(const stored& from) { return std::isfinite(to_float(from.scale)); }

  static packed_factors::factors factors_of(const stored& from, index i) {
    return {to_float(from.scale) * static_cast<float>(from.scales[i]), 0};
  }

  /// Products are exact: they have 11 + 7 + 5 bits.
  static void widen(const stored& from, index piece, float* to) {
    const index half = piece / 4, k = piece % 4;
    std::uint8_t lower[32], upper[32];
    std::memcpy(lower, from.lower_bits[half][k % 2], sizeof lower);
    std::memcpy(upper, from.upper_bits[half], sizeof upper);
    for (index j = 0; j < 32; j += group) {
      const float step = factors_of(from, 2 * piece + j / group).scale;
      for (index i = j; i < j + group; ++i)
        to[i] = step *
                static_cast<float>((((lower[i] >> (4 * (k / 2))) & 15) | ((upper[i] >> (2 * k)) & 3) << 4) -
                                   quant_offset);
    }
  }
};

template <>
struct format_traits<q6_k> : detail::super_traits<q6_k> {
  static constexpr const char* name = "q6_k";
};

}  // namespace corematching

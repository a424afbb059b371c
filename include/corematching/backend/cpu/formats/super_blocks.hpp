// SPDX-License-Identifier: Apache-2.0
// What decode/super_kernels.hpp asks of a format in super-blocks, and what several of them share. They
// specialise format_kernels with
//   token                 16-bit integers
//   token_factors(scales, sums)
//                         what they need of a token's eight blocks of 32 (rounded_token)
//   set_scales(block, factors, scales, minima)
//                         scales[i] = the scale of group i times the token's; returns `minima`, to which the
//                         products of the block's minima with the token are added
//   together              how many pieces of 32 weights, one after the other, share bytes of the block
//   quants<Piece>(block)  the quants of one of its eight pieces
//   bytes<Piece>(block)   with AVX2, of quants of four bits or five: the same as bytes
#pragma once

#include <cstdint>
#include <cstring>

#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/formats/super_blocks.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Eight integers of six bits each.
inline f32x8 widened_factors(std::uint32_t first, std::uint32_t last) {
  const std::uint32_t both[2] = {first, last};
  std::int8_t factors[8];
  std::memcpy(factors, both, sizeof factors);
  return f32x8::load(factors);
}

/// Of formats whose blocks begin with packed_factors.
struct factored_kernels {
  using token = std::int16_t;
  static constexpr int together = 2;

  struct token_factors {
    f32x8 scales, sums;

    token_factors(const float* of_scales, const float* of_sums)
        : scales(f32x8::load(of_scales)), sums(f32x8::load(of_sums)) {}
  };

  /// As packed_factors::of_group says, four groups at a time.
  static f32x8 set_scales(const packed_factors& block, const token_factors& x, float* scales, f32x8 minima) {
    std::uint32_t packed[3];
    std::memcpy(packed, block.of_groups, sizeof packed);
    const auto [scale, minimum, rest] = packed;
    constexpr std::uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x03030303;
    const f32x8 d = f32x8::broadcast(block.scale), m = f32x8::broadcast(block.minimum);
    (d * widened_factors(scale & six, (rest & four) | ((scale >> 6) & two) << 4) * x.scales).store(scales);
    return fma(m * widened_factors(minimum & six, ((rest >> 4) & four) | ((minimum >> 6) & two) << 4), x.sums,
               minima);
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

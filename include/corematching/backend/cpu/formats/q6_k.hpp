// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q6_k: super_blocks.hpp says what it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/super_blocks.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/q6_k.hpp"
#include "corematching/core/index.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q6_k> {
  using token = std::int16_t;
  static constexpr int together = 4;

  struct token_factors {
    alignas(64) float scales[q6_k::groups];

    token_factors(const float* of_scales, const float*) {
      for (int i = 0; i < 8; i += int{wide_lanes} / 2)
        spread_to_blocks<2>(of_scales, i).store(scales + 2 * i);
    }
  };

  template <class Stored, std::size_t Rows>
  struct row_factors {
    std::array<const Stored*, Rows> blocks;

    explicit row_factors(const std::array<const Stored*, Rows>& of_rows) : blocks(of_rows) {}

    f32x8 set_scales(std::size_t r, const token_factors& x, float* scales, f32x8 minima) const {
      const f32x8 d = f32x8::broadcast(blocks[r]->scale);
      for (index i = 0; i < q6_k::groups; i += 8)
        (d * f32x8::load(blocks[r]->scales + i) * f32x8::load(x.scales + i)).store(scales + i);
      return minima;  // there are none
    }
  };

  template <int Piece>
  static i16x32 quants(const q6_k::stored& block) {
    constexpr int half = Piece / 4, k = Piece % 4;
    const i16x32 lower = i16x32::load_widened(block.lower_bits[half][k % 2]);
    const i16x32 upper = i16x32::load_widened(block.upper_bits[half]);
    const i16x32 quants = moved_bits<k / 2 * 4, 4, 0>(lower) | moved_bits<2 * k, 2, 4>(upper);
    return quants - i16x32::broadcast(q6_k::quant_offset);
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q6_k: super_blocks.hpp says what it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/super_blocks.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/q6_k.hpp"
#include "corematching/core/index.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q6_k> {
#if COREMATCHING_HAS_AVX2
  using token = std::int8_t;
  static constexpr int together = 2;
#else
  using token = std::int16_t;
  static constexpr int together = 4;
#endif
  static constexpr int offset_of_bytes = q6_k::quant_offset;

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

#if COREMATCHING_HAS_AVX2
  template <int Piece>
  static u8x32 bytes(const q6_k::stored& block) {
    constexpr int half = Piece / 4, k = Piece % 4;
    u8x32 lower = u8x32::load(block.lower_bits[half][k % 2]), upper = u8x32::load(block.upper_bits[half]);
    if constexpr (k / 2 == 1) lower = lower.shifted_right<4>();
    if constexpr (k < 2)
      upper = upper.shifted_left<4 - 2 * k>();
    else
      upper = upper.shifted_right<2 * k - 4>();
    return select_bits(u8x32::broadcast(0x30), upper, lower & u8x32::broadcast(15));
  }
#endif
#if COREMATCHING_HAS_AVX512
  template <int Piece>
  static u8x64 bytes_of_two(const q6_k::stored& block) {
    constexpr int half = Piece / 4, k = Piece % 4;
    u8x64 lower = u8x64::load(block.lower_bits[half][0]);
    if constexpr (k / 2 == 1) lower = lower.shifted_right<4>();
    return (lower & u8x64::broadcast(15)) | u8x64::two_pairs_of_bits<2 * k>(block.upper_bits[half]);
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

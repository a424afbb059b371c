// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q8_0_planes: blocks are put together from their halves and are then those of q8_0.
#pragma once

#include <array>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/q8_0.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/q8_0_planes.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q8_0_planes> {
  using whole = format_kernels<q8_0>;
  using token = whole::token;
  using token_block = whole::token_block;

  /// A block of q8_0.
  struct merged {
    alignas(32) std::uint8_t quants[quant_bytes<q8_0>];
    explicit merged(plane_block from) { q8_0_planes::merge(from.upper, from.lower, quants); }
  };

  /// Of both halves, and of one, whose bits have no sign.
  static i32x8 times(const token_block& x, plane_block block) { return x.times(merged(block).quants); }
  static i32x8 times_half(const token_block& x, const std::uint8_t* half) {
    const i16x16 both = u8x16::load(half).widen_unsigned();
    const i32x8 first = multiply_add_pairs(both.low_nibbles(), x.first, i32x8::zero());
    return multiply_add_pairs(both.high_nibbles(), x.last, first);
  }

  static std::array<i16x16, 2> quants(plane_block block) { return whole::quants(merged(block).quants); }
  static std::array<i16x16, 4> quant_pairs(plane_block a, plane_block b) {
    return whole::quant_pairs(merged(a).quants, merged(b).quants);
  }
#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(plane_block block, std::uint8_t more) {
    return whole::bytes(merged(block).quants, more);
  }
#endif
#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(plane_block block, __m512 scale) {
    return whole::numbers(merged(block).quants, scale);
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

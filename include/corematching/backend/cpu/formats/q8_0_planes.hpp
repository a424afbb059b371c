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

  /// The weights 0..15 and 16..31 of a block, merged_offset too large.
  static std::array<i16x16, 2> shifted_quants(plane_block block) {
    const i16x16 upper = u8x16::load(block.upper).widen_unsigned(),
                 lower = u8x16::load(block.lower).widen_unsigned();
    return {upper.low_nibbles().times_16() + lower.low_nibbles(),
            upper.high_nibbles().times_16() + lower.high_nibbles()};
  }

  /// Of both halves, merged_offset too large, and of one, whose bits have no sign.
  static i32x8 times(const token_block& x, plane_block block) {
    const auto [first, last] = shifted_quants(block);
    return multiply_add_pairs(last, x.last, multiply_add_pairs(first, x.first, i32x8::zero()));
  }
  static i32x8 times_half(const token_block& x, const std::uint8_t* half) {
    const i16x16 both = u8x16::load(half).widen_unsigned();
    const i32x8 first = multiply_add_pairs(both.low_nibbles(), x.first, i32x8::zero());
    return multiply_add_pairs(both.high_nibbles(), x.last, first);
  }

  static std::array<i16x16, 2> quants(plane_block block) {
    const i16x16 offset = i16x16::broadcast(q8_0_planes::merged_offset);
    const auto [first, last] = shifted_quants(block);
    return {first - offset, last - offset};
  }
  static std::array<i16x16, 4> quant_pairs(plane_block a, plane_block b) {
    return whole::quant_pairs(merged(a).data(), merged(b).data());
  }
#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(plane_block block, std::uint8_t more) {
    return whole::bytes(merged(block).data(), more);
  }
#endif
#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(plane_block block, __m512 scale) {
    return whole::numbers(merged(block).data(), scale);
  }
#endif

 private:
  /// A block of q8_0.
  static std::array<std::uint8_t, block_size> merged(plane_block from) {
    return q8_0_planes::merged(from.upper, from.lower);
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

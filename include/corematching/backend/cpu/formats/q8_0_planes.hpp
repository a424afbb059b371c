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

  /// The weights 0..15 and 16..31 of a block, or of each of two, merged_offset too large.
  template <class V>
  static std::array<V, 2> shifted_quants(V upper, V lower) {
    return {upper.low_nibbles().times_16() + lower.low_nibbles(),
            upper.high_nibbles().times_16() + lower.high_nibbles()};
  }

  /// Partial sums of the products with such halves of a token: of both planes, merged_offset too large, and
  /// of one, whose bits have no sign.
  template <class V>
  static auto times(const std::array<V, 2>& x, V upper, V lower) {
    const auto [first, last] = shifted_quants(upper, lower);
    return sum_of_products(x, first, last);
  }
  template <class V>
  static auto times_half(const std::array<V, 2>& x, V half) {
    return sum_of_products(x, half.low_nibbles(), half.high_nibbles());
  }

  static std::array<i16x16, 2> quants(plane_block block) {
    const i16x16 offset = i16x16::broadcast(q8_0_planes::merged_offset);
    const auto [first, last] =
        shifted_quants(u8x16::load(block.upper).widen_unsigned(), u8x16::load(block.lower).widen_unsigned());
    return {first - offset, last - offset};
  }
  static std::array<i16x16, 4> quant_pairs(plane_block a, plane_block b) {
    const auto first = merged(a), second = merged(b);
    return whole::quant_pairs(first.data(), second.data());
  }
#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(plane_block block, std::uint8_t more) {
    return u8x32::nibbles(block.upper).times_16() + u8x32::nibbles(block.lower) +
           u8x32::broadcast(static_cast<std::uint8_t>(more - q8_0_planes::merged_offset));
  }
#endif
#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(plane_block block, __m512 scale) {
    const auto quants = merged(block);
    return whole::numbers(quants.data(), scale);
  }
#endif

 private:
  static i32x8 products(i16x16 a, i16x16 b, i16x16 c, i16x16 d) {
    return multiply_add_pairs(c, d, multiply_add_pairs(a, b, i32x8::zero()));
  }
#if COREMATCHING_HAS_AVX512
  static i32x16 products(i16x32 a, i16x32 b, i16x32 c, i16x32 d) {
    return multiply_add_pairs(c, d, multiply_add_pairs(a, b, i32x16::zero()));
  }
#endif
  template <class V>
  static auto sum_of_products(const std::array<V, 2>& x, V first, V last) {
    return products(first, x[0], last, x[1]);
  }

  /// A block of q8_0.
  static std::array<std::uint8_t, block_size> merged(plane_block from) {
    return q8_0_planes::merged(from.upper, from.lower);
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

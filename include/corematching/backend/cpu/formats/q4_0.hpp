// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q4_0. Decode rounds tokens to 8 bits: the weights are rounded sixteen times more
// coarsely anyway, and the products of their quants then fit in 16 bits, at three quarters of the
// instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/q4_0.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q4_0> {
  using token = std::int8_t;

  struct token_block {
    i8x32 all;
    explicit token_block(const std::int8_t* quants) : all(i8x32::load(quants)) {}
    i32x8 times(const std::uint8_t* block) const { return multiply_byte_quads(i8x32::nibbles(block), all); }
  };

  /// 8 * 127 * 15 less the offset, 8 * 127 * 8, or as much of the other sign: within 2^15.
  struct coefficients {
    static constexpr float largest = 127, divisor = 1;
    alignas(32) float steps[group_blocks];
    alignas(
        32) std::int32_t pairs[sum_rows / 2][group_blocks];  // of rows 2 p and 2 p + 1, twice in each element
    alignas(32) std::int32_t offsets[group_blocks];          // twice in each element

    void set(const std::array<i32x8, sum_rows>& rounded) {
      i32x8 total = i32x8::zero();
      for (std::size_t r = 0; r < sum_rows; r += 2) {
        total = total + rounded[r] + rounded[r + 1];
        byte_pairs(rounded[r], rounded[r + 1]).doubled().store(pairs[r / 2]);
      }
      (total * i32x8::broadcast(-q4_0::quant_offset)).doubled().store(offsets);
    }

    void add_sums(const group_quants& w, index j, float* y) const {
      i16x16 first = i16x16::broadcast_pair(offsets[j]), last = first;
      for (std::size_t r = 0; r < sum_rows; r += 2) {
        const i8x32 factor = i8x32::broadcast(pairs[r / 2][j]);
        const i8x32 quants =
            i8x32::interleaved(w[r] + j * quant_bytes<q4_0>, w[r + 1] + j * quant_bytes<q4_0>);
        first = first + multiply_byte_pairs(quants.low_nibbles(), factor);
        last = last + multiply_byte_pairs(quants.high_nibbles(), factor);
      }
      add_scaled(first, last, steps[j], y);
    }
  };

  static std::array<i16x16, 2> quants(const std::uint8_t* block) {
    const i16x16 both = u8x16::load(block).widen_unsigned();
    return {both.low_nibbles(), both.high_nibbles()};
  }

  static std::array<i16x16, 4> quant_pairs(const std::uint8_t* a, const std::uint8_t* b) {
    const u8x16 both_a = u8x16::load(a), both_b = u8x16::load(b);
    const i16x16 first = interleave_first(both_a, both_b).widen_unsigned();
    const i16x16 last = interleave_last(both_a, both_b).widen_unsigned();
    return {first.low_nibbles(), last.low_nibbles(), first.high_nibbles(), last.high_nibbles()};
  }

#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(const std::uint8_t* block, std::uint8_t more) {
    return u8x32::nibbles(block) + u8x32::broadcast(static_cast<std::uint8_t>(more - q4_0::quant_offset));
  }
#endif

#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(const std::uint8_t* block, __m512 scale) {
    // What a quant stands for is found in a register, by the lower four bits of each lane.
    const __m512 values =
        _mm512_mul_ps(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7), scale);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block));
    const __m512i quants = _mm512_cvtepu8_epi32(bytes);
    return {f32x16{_mm512_permutexvar_ps(quants, values)},
            f32x16{_mm512_permutexvar_ps(_mm512_srli_epi32(quants, 4), values)}};
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

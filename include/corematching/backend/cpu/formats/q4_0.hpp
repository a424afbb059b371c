// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q4_0. Decode rounds tokens to 8 bits: the weights are rounded sixteen times more
// coarsely anyway, and the products of their quants then fit in 16 bits, at three quarters of the
// instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/pair_coefficients.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/q4_0.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q4_0> {
  using token = std::int8_t;

#if COREMATCHING_HAS_AVX512
  static constexpr index blocks_at_once = 2;
  static i8x64 vector_of_token(const std::int8_t* quants) {
    return i8x64::load_two(quants);
  }
  static u8x64 vector_of_row(const std::uint8_t* blocks) {
    return u8x64::nibbles_of_two(blocks);
  }
  static wide_i32 products(u8x64 row, i8x64 token) {
    return multiply_add_quads(row, token, wide_i32::zero());
  }
  static wide_f32 spread(const float* scales) {
    return wide_f32::broadcast_two(scales);
  }

  using coefficients = pair_coefficients<q4_0>;
  static std::array<i16x32, 2> row_pairs(const std::uint8_t* a, const std::uint8_t* b) {
    alignas(32) std::uint8_t pairs[block_size];
    i8x32::interleaved(a, b).store(pairs);
    const i16x32 both = i16x32::load_widened(pairs);
    return {both & i16x32::broadcast(15), both.shifted_right<4>()};
  }
  static const std::array<i32x16, 2>& columns(const std::array<i32x16, 2>& sums) {
    return sums;
  }
#else
  static constexpr index blocks_at_once = 1;
  static i8x32 vector_of_token(const std::int8_t* quants) {
    return i8x32::load(quants);
  }
  static i8x32 vector_of_row(const std::uint8_t* blocks) {
    return i8x32::nibbles(blocks);
  }
  static i32x8 products(i8x32 row, i8x32 token) {
    return multiply_byte_quads(row, token);
  }
  static f32x8 spread(const float* scales) {
    return f32x8::broadcast(*scales);
  }

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

    template <std::size_t Tokens>
    static void add_sums(const std::array<coefficients, Tokens>& of, const group_quants& w, index j,
                         const std::array<float*, Tokens>& y) {
      std::array<i16x16, Tokens> first, last;
      for (std::size_t t = 0; t < Tokens; ++t) first[t] = last[t] = i16x16::broadcast_pair(of[t].offsets[j]);
      for (std::size_t r = 0; r < sum_rows; r += 2) {
        const i8x32 quants =
            i8x32::interleaved(w[r] + j * quant_bytes<q4_0>, w[r + 1] + j * quant_bytes<q4_0>);
        const i8x32 low = quants.low_nibbles(), high = quants.high_nibbles();
        for (std::size_t t = 0; t < Tokens; ++t) {
          const i8x32 factor = i8x32::broadcast(of[t].pairs[r / 2][j]);
          first[t] = first[t] + multiply_byte_pairs(low, factor);
          last[t] = last[t] + multiply_byte_pairs(high, factor);
        }
      }
      for (std::size_t t = 0; t < Tokens; ++t) add_scaled(first[t], last[t], of[t].steps[j], y[t]);
    }
  };
#endif

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

#if COREMATCHING_HAS_AVX2
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
    return {f32x16{_mm512_permutexvar_ps(quants, values)}, f32x16 {
              _mm512_permutexvar_ps(_mm512_srli_epi32(quants, 4), values)
            }};
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

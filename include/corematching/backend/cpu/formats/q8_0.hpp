// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q8_0. Decode rounds tokens to 16 bits: where an instruction set has no dot product of
// bytes, sixteen bits cost the multipliers as much as eight do (two instructions for 32 products), elsewhere
// memory is what decode waits for, and they leave the rounding of the weights the only one that shows.
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
#include "corematching/core/formats/q8_0.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q8_0> {
  using token = std::int16_t;

  static constexpr index blocks_at_once = 1;
  static i16x32 vector_of_token(const std::int16_t* quants) {
    i16x32 all = i16x32::load(quants);
    keep_in_register(all);
    return all;
  }
  static i16x32 vector_of_row(const std::uint8_t* blocks) {
    return i16x32::load_widened(reinterpret_cast<const std::int8_t*>(blocks));
  }
  static wide_i32 products(i16x32 row, i16x32 token) { return multiply_blocks(row, token); }
  static wide_f32 spread(const float* scales) { return wide_f32::broadcast(*scales); }

#if COREMATCHING_HAS_AVX512
  using coefficients = pair_coefficients<q8_0>;
  static std::array<i16x32, 2> row_pairs(const std::uint8_t* a, const std::uint8_t* b) {
    return i16x32::pairs(reinterpret_cast<const std::int8_t*>(a), reinterpret_cast<const std::int8_t*>(b));
  }
  static std::array<i32x16, 2> columns(const std::array<i32x16, 2>& sums) {
    return in_order(sums);
  }
#else
  /// Products are divided by 128 as they are formed: 8 * 4095 * 127 / 128 < 2^15.
  struct coefficients {
    static constexpr float largest = 4095, divisor = 128;
    alignas(32) float steps[group_blocks];
    alignas(32) std::int32_t factors[sum_rows][group_blocks];  // twice in each element

    void set(const std::array<i32x8, sum_rows>& rounded) {
      for (std::size_t r = 0; r < sum_rows; ++r) rounded[r].doubled().store(factors[r]);
    }

    template <std::size_t Tokens>
    static void add_sums(const std::array<coefficients, Tokens>& of, const group_quants& w, index j,
                         const std::array<float*, Tokens>& y) {
      std::array<i16x16, Tokens> even, odd;
      even.fill(i16x16::zero());
      odd.fill(i16x16::zero());
      for (std::size_t r = 0; r < sum_rows; ++r) {
        const i16x16 quants = i16x16::load_bytes(w[r] + j * quant_bytes<q8_0>);
        const i16x16 evens = i16x16::even_bytes(quants), odds = i16x16::odd_bytes(quants);
        for (std::size_t t = 0; t < Tokens; ++t) {
          const i16x16 factor = i16x16::broadcast_pair(of[t].factors[r][j]);
          even[t] = even[t] + multiply_high(evens, factor);
          odd[t] = odd[t] + multiply_high(odds, factor);
        }
      }
      for (std::size_t t = 0; t < Tokens; ++t)
        add_scaled(interleaved_first(even[t], odd[t]), interleaved_last(even[t], odd[t]), of[t].steps[j],
                   y[t]);
    }
  };
#endif

  static std::array<i16x16, 2> quants(const std::uint8_t* block) {
    return {u8x16::load(block).widen_signed(), u8x16::load(block + 16).widen_signed()};
  }

  static std::array<i16x16, 4> quant_pairs(const std::uint8_t* a, const std::uint8_t* b) {
    const u8x16 a0 = u8x16::load(a), a1 = u8x16::load(a + 16), b0 = u8x16::load(b), b1 = u8x16::load(b + 16);
    return {interleave_first(a0, b0).widen_signed(), interleave_last(a0, b0).widen_signed(),
            interleave_first(a1, b1).widen_signed(), interleave_last(a1, b1).widen_signed()};
  }

#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(const std::uint8_t* block, std::uint8_t more) {
    return u8x32::load(block) + u8x32::broadcast(more);
  }
#endif

#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(const std::uint8_t* block, __m512 scale) {
    const auto scaled = [&](const std::uint8_t* quants) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(quants));
      return f32x16{_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale)};
    };
    return {scaled(block), scaled(block + 16)};
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

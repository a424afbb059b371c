// SPDX-License-Identifier: Apache-2.0
// The coefficients of weighted sums with AVX-512, whose dot products of pairs take them with 16 bits: the
// products of two rows meet in a lane of 32 bits, where sums over eight rows are exact.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/avx512.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"

#if COREMATCHING_HAS_AVX512

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// coefficients of formats that have
///   row_pairs(a, b)  the blocks of two rows side by side, in lanes 2 i and 2 i + 1
///   columns(sums)    sums of those in the order of the columns
template <grouped_format Q>
struct pair_coefficients {
  static constexpr float largest = 32767, divisor = 1;
  alignas(32) float steps[group_blocks];
  alignas(32) std::int32_t pairs[sum_rows / 2][group_blocks];  // of rows 2 p and 2 p + 1
  alignas(32) std::int32_t offsets[group_blocks];

  void set(const std::array<i32x8, sum_rows>& rounded) {
    i32x8 total = i32x8::zero();
    for (std::size_t r = 0; r < sum_rows; r += 2) {
      half_pairs(rounded[r], rounded[r + 1]).store(pairs[r / 2]);
      if constexpr (Q::quant_offset != 0) total = total + rounded[r] + rounded[r + 1];
    }
    (total * i32x8::broadcast(-Q::quant_offset)).store(offsets);
  }

  template <std::size_t Tokens>
  static void add_sums(const std::array<pair_coefficients, Tokens>& of, const group_quants& w, index j,
                       const std::array<float*, Tokens>& y) {
    using kernels = format_kernels<Q>;
    std::array<std::array<i32x16, 2>, Tokens> sums;
    for (std::size_t t = 0; t < Tokens; ++t)
      sums[t].fill(Q::quant_offset == 0 ? i32x16::zero() : i32x16::broadcast(of[t].offsets[j]));
    for (std::size_t p = 0; p < sum_rows / 2; ++p) {
      const index at = j * quant_bytes<Q>;
      const auto [first, last] = kernels::row_pairs(w[2 * p] + at, w[2 * p + 1] + at);
      for (std::size_t t = 0; t < Tokens; ++t) {
        const i16x32 pair = i16x32::broadcast_pair(of[t].pairs[p][j]);
        sums[t] = {multiply_add_pairs(first, pair, sums[t][0]), multiply_add_pairs(last, pair, sums[t][1])};
      }
    }
    for (std::size_t t = 0; t < Tokens; ++t) {
      const auto [first, last] = kernels::columns(sums[t]);
      const f32x16 step = f32x16::broadcast(of[t].steps[j]);
      fma(first.to_float(), step, f32x16::load(y[t])).store(y[t]);
      fma(last.to_float(), step, f32x16::load(y[t] + 16)).store(y[t] + 16);
    }
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in wide blocks (core/formats/wide_blocks.hpp) with a token that is rounded to 16 bits:
// products of integers are exact and summed over a scale's share of a block; a minimum meets the sum of the
// token's share.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/wide_blocks.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

namespace detail {

template <wide_format Q>
struct format_kernels<Q> {
  using token = std::int16_t;
};

/// The sums of a token's first and last sixteen elements of a block, in the token's own numbers.
inline std::array<float, 2> half_sums(i16x16 first, i16x16 last, float unit) {
  const i16x16 ones = i16x16::broadcast(1);
  const auto sum = [&](i16x16 half) {
    return unit * multiply_add_pairs(half, ones, i32x8::zero()).to_float().sum();
  };
  return {sum(first), sum(last)};
}

}  // namespace detail

/// result[r] = the dot product of row r with `x`.
template <wide_format Q, std::size_t Rows>
std::array<float, Rows> dot_wide(const row_streams<Rows>& rows, const rounded_token<std::int16_t>& x,
                                 index cols) {
  const index blocks = cols / block_size, bytes = blocks * Q::bytes, lead = std::min(dot_lead, bytes);
  std::array<f32x8, Rows> sums;
  std::array<float, Rows> minima{};
  sums.fill(f32x8::zero());
  for (index b = 0; b < blocks; ++b) {
    prefetch_step<1>(rows, b * Q::bytes + lead, bytes);
    const i16x16 first = i16x16::load(x.quants + b * block_size);
    const i16x16 last = i16x16::load(x.quants + b * block_size + 16);
    const f32x8 unit = f32x8::broadcast(x.scales[b]);
    [[maybe_unused]] std::array<float, 2> halves{};
    if constexpr (Q::has_minimum && Q::scales == 2) halves = detail::half_sums(first, last, x.scales[b]);
    for (std::size_t r = 0; r < Rows; ++r) {
      const auto* const factors = reinterpret_cast<const float*>(rows[r].row + b * Q::bytes);
      const auto* const quants = reinterpret_cast<const std::uint8_t*>(factors + Q::factors);
      const i32x8 low = multiply_add_pairs(u8x16::load(quants).widen_signed(), first, i32x8::zero());
      if constexpr (Q::scales == 1) {
        const i32x8 all = multiply_add_pairs(u8x16::load(quants + 16).widen_signed(), last, low);
        sums[r] = fma(all.to_float() * unit, f32x8::broadcast(factors[0]), sums[r]);
        if constexpr (Q::has_minimum) minima[r] += factors[1] * x.sums[b];
      } else {
        const i32x8 high = multiply_add_pairs(u8x16::load(quants + 16).widen_signed(), last, i32x8::zero());
        sums[r] = fma(low.to_float() * unit, f32x8::broadcast(factors[0]), sums[r]);
        sums[r] = fma(high.to_float() * unit, f32x8::broadcast(factors[1]), sums[r]);
        if constexpr (Q::has_minimum) minima[r] += factors[2] * halves[0] + factors[3] * halves[1];
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) result[r] = sums[r].sum() + minima[r];
  return result;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

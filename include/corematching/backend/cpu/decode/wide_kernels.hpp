// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in wide blocks (core/formats/wide_blocks.hpp) with tokens that are rounded to 16 bits:
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
#include "corematching/backend/cpu/decode/token_groups.hpp"
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

/// One block of a token.
template <wide_format Q>
struct wide_token {
  wide_token(const rounded_token<std::int16_t>& x, index b)
      : first(i16x16::load(x.quants + b * block_size)),
        last(i16x16::load(x.quants + b * block_size + 16)),
        unit(f32x8::broadcast(x.scales[b])),
        sum(x.sums[b]) {
    if constexpr (Q::has_minimum && Q::scales == 2) halves = half_sums(first, last, x.scales[b]);
  }

  i16x16 first, last;
  f32x8 unit;
  float sum;
  std::array<float, 2> halves{};
};

/// sum and minimum += the products of a block of a row, its scales and its minima times the token's.
template <wide_format Q>
void add_block(const float* factors, i16x16 first, i16x16 last, const wide_token<Q>& x, f32x8& sum,
               float& minimum) {
  const i32x8 low = multiply_add_pairs(first, x.first, i32x8::zero());
  if constexpr (Q::scales == 1) {
    const i32x8 all = multiply_add_pairs(last, x.last, low);
    sum = fma(all.to_float() * x.unit, f32x8::broadcast(factors[0]), sum);
    if constexpr (Q::has_minimum) minimum += factors[1] * x.sum;
  } else {
    const i32x8 high = multiply_add_pairs(last, x.last, i32x8::zero());
    sum = fma(low.to_float() * x.unit, f32x8::broadcast(factors[0]), sum);
    sum = fma(high.to_float() * x.unit, f32x8::broadcast(factors[1]), sum);
    if constexpr (Q::has_minimum) minimum += factors[2] * x.halves[0] + factors[3] * x.halves[1];
  }
}

}  // namespace detail

/// result[t][r] = the dot product of row r with x[t].
template <wide_format Q, std::size_t Rows, std::size_t Tokens>
dot_products<Rows, Tokens> dot_wide(const row_streams<Rows>& rows,
                                    const std::array<rounded_token<std::int16_t>, Tokens>& x, index cols) {
  const index blocks = cols / block_size, bytes = blocks * Q::bytes, lead = std::min(dot_lead, bytes);
  vector_sums<f32x8, Rows, Tokens> sums;
  dot_products<Rows, Tokens> minima{};
  for (index b = 0; b < blocks; ++b) {
    prefetch_step<1>(rows, b * Q::bytes + lead, bytes);
    const auto tokens =
        detail::for_each_token<Tokens>([&](std::size_t t) { return detail::wide_token<Q>(x[t], b); });
    for (std::size_t r = 0; r < Rows; ++r) {
      const auto* const factors = reinterpret_cast<const float*>(rows[r].row + b * Q::bytes);
      const auto* const quants = reinterpret_cast<const std::uint8_t*>(factors + Q::factors);
      const i16x16 first = u8x16::load(quants).widen_signed(), last = u8x16::load(quants + 16).widen_signed();
      for (std::size_t t = 0; t < Tokens; ++t)
        detail::add_block<Q>(factors, first, last, tokens[t], sums.of[t][r], minima[t][r]);
    }
  }
  for (std::size_t t = 0; t < Tokens; ++t)
    for (std::size_t r = 0; r < Rows; ++r) minima[t][r] += sums.of[t][r].sum();
  return minima;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode for the block formats, in integers: products of 16-bit tokens (or coefficients)
// and quants are exact and summed over one block, then scaled.
#pragma once

#include <algorithm>
#include <array>

#include "corematching/backend/cpu/rounded_tokens.hpp"
#include "corematching/backend/cpu/row_kernels.hpp"
#include "corematching/backend/cpu/row_stream.hpp"
#include "corematching/backend/cpu/simd_int16.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Blocks whose scales are loaded and multiplied at once.
inline constexpr index scales_at_once = 8;

/// Weights 0..15 and 16..31 of a block; those of q4_0 too large by q4_0_offset.
inline std::array<i16x16, 2> quants_of(const std::uint8_t* block, q8_0) {
  return {u8x16::load(block).widen_signed(), u8x16::load(block + 16).widen_signed()};
}
inline std::array<i16x16, 2> quants_of(const std::uint8_t* block, q4_0) {
  const i16x16 both = u8x16::load(block).widen_unsigned();
  return {both.low_nibbles(), both.high_nibbles()};
}

/// The blocks of two rows side by side: lanes 2 i and 2 i + 1 of vector v are weight 8 v + i of each.
inline std::array<i16x16, 4> quant_pairs(const std::uint8_t* a, const std::uint8_t* b, q8_0) {
  const u8x16 a0 = u8x16::load(a), a1 = u8x16::load(a + 16), b0 = u8x16::load(b), b1 = u8x16::load(b + 16);
  return {interleave_first(a0, b0).widen_signed(), interleave_last(a0, b0).widen_signed(),
          interleave_first(a1, b1).widen_signed(), interleave_last(a1, b1).widen_signed()};
}
inline std::array<i16x16, 4> quant_pairs(const std::uint8_t* a, const std::uint8_t* b, q4_0) {
  const u8x16 both_a = u8x16::load(a), both_b = u8x16::load(b);
  const i16x16 first = interleave_first(both_a, both_b).widen_unsigned();
  const i16x16 last = interleave_last(both_a, both_b).widen_unsigned();
  return {first.low_nibbles(), last.low_nibbles(), first.high_nibbles(), last.high_nibbles()};
}

/// What the quants of a format are stored larger by.
template <block_format Q>
inline constexpr std::int16_t quant_offset = dtype_of<Q> == dtype::q4_0 ? q4_0_offset : 0;

/// Asks for what follows the quants of blocks b..b+8: one request for each cache line of each row. Scales lie
/// behind the quants of their row and are asked for as if the quants went on.
template <block_format Q, std::size_t Rows>
void ask_ahead(const row_streams<Rows>& rows, index b, index lead, index bytes) {
  for (const row_stream& row : rows)
    for (index line = 0; line < scales_at_once * quant_bytes<Q>; line += 64)
      row.ask_ahead(b * quant_bytes<Q> + line, lead, bytes);
}

}  // namespace detail

/// result[r] = sum over blocks b of scale(r, b) x.scale(b) sum over i of quant(r, b, i) x.quant(b, i), where
/// quant is what was stored less its offset q: sum (stored - q) x = sum stored x - q sum x.
template <block_format Q, std::size_t Rows>
std::array<float, Rows> dot_blocks(const row_streams<Rows>& rows, const rounded_token& x, index cols) {
  using namespace detail;
  const index blocks = cols / block_size, bytes = static_cast<index>(bytes_of(dtype_of<Q>, cols));
  const index lead = std::min(dot_lead, bytes);
  std::array<f32x8, Rows> sums, offsets;
  sums.fill(f32x8::zero());
  offsets.fill(f32x8::zero());
  alignas(32) float scales[Rows][scales_at_once];
  for (index b = 0; b < blocks; b += scales_at_once) {
    const index count = std::min(scales_at_once, blocks - b);
    const f32x8 token_scales = load_up_to_eight(x.scales + b, count),
                token_sums = load_up_to_eight(x.sums + b, count);
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x8 row_scales = load_up_to_eight(quantised_row<Q>(rows[r].row, cols).scales + b, count);
      (row_scales * token_scales).store(scales[r]);
      if constexpr (quant_offset<Q> != 0) offsets[r] = fma(row_scales, token_sums, offsets[r]);
    }
    ask_ahead<Q>(rows, b, lead, bytes);
    for (index j = 0; j < count; ++j) {
      const std::int16_t* token = x.quants + (b + j) * block_size;
      const i16x16 x0 = i16x16::load(token), x1 = i16x16::load(token + 16);
      for (std::size_t r = 0; r < Rows; ++r) {
        const auto [w0, w1] = quants_of(quantised_row<Q>(rows[r].row, cols).block(b + j), Q{});
        const i32x8 sum = multiply_add_pairs(w1, x1, multiply_add_pairs(w0, x0, i32x8::zero()));
        sums[r] = fma(sum.to_float(), f32x8::broadcast(scales[r][j]), sums[r]);
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r)
    result[r] = sums[r].sum() - static_cast<float>(quant_offset<Q>) * offsets[r].sum();
  return result;
}

namespace detail {

/// Coefficients factors[r] scale(r, b) of eight blocks, rounded to 16 bits in units of `steps`[b].
template <std::size_t Rows>
struct rounded_factors {
  alignas(32) float steps[scales_at_once];
  alignas(32) std::int32_t pairs[Rows / 2][scales_at_once];  // of rows 2 p (low half) and 2 p + 1
  alignas(32) std::int32_t totals[scales_at_once];           // sum over the rows

  explicit rounded_factors(const std::array<f32x8, Rows>& coefficients) {
    f32x8 largest = f32x8::zero(), nought = f32x8::zero();
    for (const f32x8& c : coefficients) {
      largest = larger(c.magnitude(), largest);
      nought = fma(c, f32x8::zero(), nought);  // NaN where a coefficient is not finite
    }
    (largest * f32x8::broadcast(1 / largest_int16) + nought).store(steps);
    alignas(32) float inverse[scales_at_once];
    largest.store(inverse);
    for (float& top : inverse) top = top > 0x1p-100f ? largest_int16 / top : 0.0f;
    const f32x8 inverses = f32x8::load(inverse);
    i32x8 total = i32x8::zero();
    for (std::size_t p = 0; p < Rows / 2; ++p) {
      const i32x8 low = i32x8::rounded(coefficients[2 * p] * inverses);
      const i32x8 high = i32x8::rounded(coefficients[2 * p + 1] * inverses);
      total = total + low + high;
      i16x16::pairs(low, high).store(reinterpret_cast<std::int16_t*>(pairs[p]));
    }
    total.store(totals);
  }
};

}  // namespace detail

/// y[i] += sum over r of factors[r] * row r's weight i, i < cols; rows come in pairs.
template <block_format Q, std::size_t Rows>
void add_weighted_blocks(const row_streams<Rows>& rows, const std::array<float, Rows>& factors, index cols,
                         float* y) {
  using namespace detail;
  static_assert(Rows % 2 == 0);
  const index blocks = cols / block_size, bytes = static_cast<index>(bytes_of(dtype_of<Q>, cols));
  const index lead = std::min(sum_lead, bytes);
  for (index b = 0; b < blocks; b += scales_at_once) {
    const index count = std::min(scales_at_once, blocks - b);
    std::array<f32x8, Rows> coefficients;
    for (std::size_t r = 0; r < Rows; ++r)
      coefficients[r] = load_up_to_eight(quantised_row<Q>(rows[r].row, cols).scales + b, count) *
                        f32x8::broadcast(factors[r]);
    const rounded_factors<Rows> rounded(coefficients);
    ask_ahead<Q>(rows, b, lead, bytes);
    for (index j = 0; j < count; ++j) {
      std::array<i32x8, 4> sums;
      sums.fill(i32x8::broadcast(-quant_offset<Q> * rounded.totals[j]));
      for (std::size_t p = 0; p < Rows / 2; ++p) {
        const auto pairs = quant_pairs(quantised_row<Q>(rows[2 * p].row, cols).block(b + j),
                                       quantised_row<Q>(rows[2 * p + 1].row, cols).block(b + j), Q{});
        const i16x16 both = i16x16::broadcast_pair(rounded.pairs[p][j]);
        for (std::size_t v = 0; v < 4; ++v) sums[v] = multiply_add_pairs(pairs[v], both, sums[v]);
      }
      float* to = y + (b + j) * block_size;
      for (std::size_t v = 0; v < 4; ++v, to += 8)
        fma(sums[v].to_float(), f32x8::broadcast(rounded.steps[j]), f32x8::load(to)).store(to);
    }
  }
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

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

/// Rows that a weighted sum takes at once.
inline constexpr std::size_t sum_rows = 8;

namespace detail {

/// Blocks whose scales are loaded and multiplied at once.
inline constexpr index scales_at_once = 8;

/// One block of a token, and its eight partial sums with a block of weights (those of q4_0 q4_0_offset too
/// large).
struct token_block_16 {
  i16x16 first, last;
  explicit token_block_16(const std::int16_t* quants)
      : first(i16x16::load(quants)), last(i16x16::load(quants + 16)) {
    keep_in_register(first);
    keep_in_register(last);
  }
  i32x8 times(const std::uint8_t* block) const {
    const i32x8 half = multiply_add_pairs(u8x16::load(block).widen_signed(), first, i32x8::zero());
    return multiply_add_pairs(u8x16::load(block + 16).widen_signed(), last, half);
  }
};
struct token_block_8 {
  i8x32 all;
  explicit token_block_8(const std::int8_t* quants) : all(i8x32::load(quants)) {}
  i32x8 times(const std::uint8_t* block) const { return multiply_byte_quads(i8x32::nibbles(block), all); }
};
template <block_format Q>
using token_block = std::conditional_t<std::same_as<Q, q8_0>, token_block_16, token_block_8>;

/// What the quants of a format are stored larger by.
template <block_format Q>
inline constexpr int quant_offset = dtype_of<Q> == dtype::q4_0 ? q4_0_offset : 0;

/// Asks for the quants that lie `lead` bytes behind those of blocks b..b+8, and for what these blocks have as
/// scales in the next rows: scales lie apart from quants, so a stream of quants does not bring them.
template <block_format Q, std::size_t Rows>
void ask_for_blocks(const row_streams<Rows>& rows, index b, index blocks, index lead) {
  constexpr index lines = scales_at_once * quant_bytes<Q> / 64;
  const index bytes = blocks * quant_bytes<Q>;
  ask_for<lines>(rows, b * quant_bytes<Q> + std::min(lead, bytes), bytes);
  for (const row_stream& stream : rows) prefetch(stream.next + bytes + b * index{sizeof(f16)});
}

/// The rows of streams as quants and scales.
template <block_format Q, std::size_t Rows>
struct block_rows {
  std::array<const std::uint8_t*, Rows> quants;
  std::array<const f16*, Rows> scales;

  block_rows(const row_streams<Rows>& rows, index cols) {
    for (std::size_t r = 0; r < Rows; ++r) {
      const quantised_row<Q> row(rows[r].row, cols);
      quants[r] = row.quants;
      scales[r] = row.scales;
    }
  }
};

/// One block of a row times one of a token; for the blocks that are left when eight are taken at a time.
template <block_format Q>
float dot_block(const quantised_row<Q>& row, const rounded_token<token_quant<Q>>& x, index b) {
  const float sum = token_block<Q>(x.quants + b * block_size).times(row.block(b)).to_float().sum();
  return to_float(row.scales[b]) * (x.scales[b] * sum - static_cast<float>(quant_offset<Q>) * x.sums[b]);
}

}  // namespace detail

/// result[r] = sum over blocks b of scale(r, b) x.scale(b) sum over i of quant(r, b, i) x.quant(b, i), where
/// quant is what was stored less its offset q: sum (stored - q) x = sum stored x - q sum x.
template <block_format Q, std::size_t Rows>
std::array<float, Rows> dot_blocks(const row_streams<Rows>& rows, const rounded_token<token_quant<Q>>& x,
                                   index cols) {
  using namespace detail;
  const index blocks = cols / block_size;
  const block_rows<Q, Rows> w(rows, cols);
  std::array<f32x8, Rows> sums, offsets;
  sums.fill(f32x8::zero());
  offsets.fill(f32x8::zero());
  alignas(32) float scales[Rows][scales_at_once];
  index b = 0;
  for (; b + scales_at_once <= blocks; b += scales_at_once) {
    const f32x8 token_scales = f32x8::load(x.scales + b), token_sums = f32x8::load(x.sums + b);
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x8 row_scales = f32x8::load(w.scales[r] + b);
      (row_scales * token_scales).store(scales[r]);
      if constexpr (quant_offset<Q> != 0) offsets[r] = fma(row_scales, token_sums, offsets[r]);
    }
    ask_for_blocks<Q>(rows, b, blocks, dot_lead);
    for (index j = 0; j < scales_at_once; ++j) {
      const token_block<Q> token(x.quants + (b + j) * block_size);
      for (std::size_t r = 0; r < Rows; ++r) {
        const i32x8 sum = token.times(w.quants[r] + (b + j) * quant_bytes<Q>);
        sums[r] = fma(sum.to_float(), f32x8::broadcast(scales[r][j]), sums[r]);
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    result[r] = sums[r].sum() - static_cast<float>(quant_offset<Q>) * offsets[r].sum();
    for (index rest = b; rest < blocks; ++rest)
      result[r] += dot_block<Q>(quantised_row<Q>(rows[r].row, cols), x, rest);
  }
  return result;
}

namespace detail {

/// Coefficients factors[r] scale(r, b) of eight blocks b as integers, and what the sums with them are to be
/// multiplied with. Eight products of the largest coefficient and quant must fit into 16 bits.
template <block_format Q>
struct rounded_factors;

/// Products with q8_0 are divided by 128 as they are formed: 8 * 4095 * 127 / 128 < 2^15.
template <>
struct rounded_factors<q8_0> {
  static constexpr float largest = 4095, divisor = 128;
  alignas(32) float steps[scales_at_once];
  alignas(32) std::int32_t factors[sum_rows][scales_at_once];  // twice in each element

  void set(const std::array<i32x8, sum_rows>& rounded) {
    for (std::size_t r = 0; r < sum_rows; ++r) rounded[r].doubled().store(factors[r]);
  }

  /// Sums over the rows for the 32 columns of block `b`, the j-th of the eight.
  std::array<f32x8, 4> sum(const block_rows<q8_0, sum_rows>& w, index b, index j) const {
    i16x16 even = i16x16::zero(), odd = i16x16::zero();
    for (std::size_t r = 0; r < sum_rows; ++r) {
      const i16x16 factor = i16x16::broadcast_pair(factors[r][j]);
      const i16x16 quants = i16x16::load_bytes(w.quants[r] + b * quant_bytes<q8_0>);
      even = even + multiply_high(i16x16::even_bytes(quants), factor);
      odd = odd + multiply_high(i16x16::odd_bytes(quants), factor);
    }
    const auto [left, right] = interleaved(even, odd);
    const auto [c0, c1] = left.to_float();
    const auto [c2, c3] = right.to_float();
    return {c0, c1, c2, c3};
  }
};

/// 8 * 127 * 15 less the offset, 8 * 127 * 8, or as much of the other sign: within 2^15.
template <>
struct rounded_factors<q4_0> {
  static constexpr float largest = 127, divisor = 1;
  alignas(32) float steps[scales_at_once];
  alignas(
      32) std::int32_t pairs[sum_rows / 2][scales_at_once];  // of rows 2 p and 2 p + 1, twice in each element
  alignas(32) std::int32_t offsets[scales_at_once];          // twice in each element

  void set(const std::array<i32x8, sum_rows>& rounded) {
    i32x8 total = i32x8::zero();
    for (std::size_t r = 0; r < sum_rows; r += 2) {
      total = total + rounded[r] + rounded[r + 1];
      byte_pairs(rounded[r], rounded[r + 1]).doubled().store(pairs[r / 2]);
    }
    (total * i32x8::broadcast(-q4_0_offset)).doubled().store(offsets);
  }

  /// Sums over the rows for the 32 columns of block `b`, the j-th of the eight.
  std::array<f32x8, 4> sum(const block_rows<q4_0, sum_rows>& w, index b, index j) const {
    i16x16 first = i16x16::broadcast_pair(offsets[j]), last = first;
    for (std::size_t r = 0; r < sum_rows; r += 2) {
      const i8x32 factor = i8x32::broadcast(pairs[r / 2][j]);
      const i8x32 quants =
          i8x32::interleaved(w.quants[r] + b * quant_bytes<q4_0>, w.quants[r + 1] + b * quant_bytes<q4_0>);
      first = first + multiply_byte_pairs(quants.low_nibbles(), factor);
      last = last + multiply_byte_pairs(quants.high_nibbles(), factor);
    }
    const auto [c0, c1] = first.to_float();
    const auto [c2, c3] = last.to_float();
    return {c0, c1, c2, c3};
  }
};

/// The coefficients of blocks b..b+8.
template <block_format Q>
rounded_factors<Q> factors_of(const block_rows<Q, sum_rows>& w, const std::array<float, sum_rows>& factors,
                              index b) {
  using rounded = rounded_factors<Q>;
  std::array<f32x8, sum_rows> exact;
  f32x8 largest = f32x8::broadcast(smallest_top), nought = f32x8::zero();
  for (std::size_t r = 0; r < sum_rows; ++r) {
    exact[r] = f32x8::load(w.scales[r] + b) * f32x8::broadcast(factors[r]);
    largest = larger(exact[r].magnitude(), largest);
    nought = fma(exact[r], f32x8::zero(), nought);  // NaN where a coefficient is not finite
  }
  const f32x8 units = f32x8::broadcast(rounded::largest) / largest;
  std::array<i32x8, sum_rows> integers;
  for (std::size_t r = 0; r < sum_rows; ++r) integers[r] = i32x8::rounded(exact[r] * units);
  rounded result;
  result.set(integers);
  fma(largest, f32x8::broadcast(rounded::divisor / rounded::largest), nought).store(result.steps);
  return result;
}

/// y[i] += factor * w[i] for the 32 weights of block `b`; for the blocks that are left.
template <block_format Q>
void add_block(const quantised_row<Q>& row, float factor, index b, float* y) {
  float weights[block_size];
  dequantise(row, b * block_size, block_size, weights);
  for (index i = 0; i < block_size; ++i) y[b * block_size + i] += factor * weights[i];
}

}  // namespace detail

/// y[i] += sum over r of factors[r] * row r's weight i, i < cols
template <block_format Q>
void add_weighted_blocks(const row_streams<sum_rows>& rows, const std::array<float, sum_rows>& factors,
                         index cols, float* y) {
  using namespace detail;
  const index blocks = cols / block_size;
  const block_rows<Q, sum_rows> w(rows, cols);
  index b = 0;
  for (; b + scales_at_once <= blocks; b += scales_at_once) {
    const rounded_factors<Q> rounded = factors_of<Q>(w, factors, b);
    ask_for_blocks<Q>(rows, b, blocks, sum_lead);
    for (index j = 0; j < scales_at_once; ++j) {
      const auto sums = rounded.sum(w, b + j, j);
      float* to = y + (b + j) * block_size;
      const f32x8 step = f32x8::broadcast(rounded.steps[j]);
      for (const f32x8& sum : sums) {
        fma(sum, step, f32x8::load(to)).store(to);
        to += 8;
      }
    }
  }
  for (; b < blocks; ++b)
    for (std::size_t r = 0; r < sum_rows; ++r)
      add_block<Q>(quantised_row<Q>(rows[r].row, cols), factors[r], b, y);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

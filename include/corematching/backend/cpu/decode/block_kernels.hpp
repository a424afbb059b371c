// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode for the block formats, in integers: products of 16-bit tokens (or coefficients)
// and quants are exact and summed over one block, then scaled.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// Rows that a weighted sum takes at once.
inline constexpr std::size_t sum_rows = 8;

namespace detail {

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

/// Cache lines that a group of blocks takes.
template <block_format Q>
inline constexpr index group_lines = (group_bytes<Q> + 63) / 64;

/// Where the group of block `b` has its scales, and its quants behind them.
template <block_format Q>
const f16* scales_of(const row_stream& stream, index b) {
  return reinterpret_cast<const f16*>(stream.row + b / group_blocks * group_bytes<Q>);
}
template <block_format Q>
const std::uint8_t* quants_of(const row_stream& stream, index b) {
  return reinterpret_cast<const std::uint8_t*>(scales_of<Q>(stream, b) + group_blocks);
}

/// One block of a row times one of a token; for the blocks that are left when eight are taken at a time.
template <block_format Q>
float dot_block(const quantised_row<Q>& row, const rounded_token<token_quant<Q>>& x, index b) {
  const float sum = token_block<Q>(x.quants + b * block_size).times(row.block(b)).to_float().sum();
  return to_float(*row.scale(b)) * (x.scales[b] * sum - static_cast<float>(quant_offset<Q>) * x.sums[b]);
}

}  // namespace detail

/// result[r] = sum over blocks b of scale(r, b) x.scale(b) sum over i of quant(r, b, i) x.quant(b, i), where
/// quant is what was stored less its offset q: sum (stored - q) x = sum stored x - q sum x.
template <block_format Q, std::size_t Rows>
std::array<float, Rows> dot_blocks(const row_streams<Rows>& rows, const rounded_token<token_quant<Q>>& x,
                                   index cols) {
  using namespace detail;
  const index blocks = cols / block_size, whole = blocks / group_blocks * group_blocks;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  const index lead = std::min(dot_lead, bytes);
  std::array<f32x8, Rows> sums, offsets;
  sums.fill(f32x8::zero());
  offsets.fill(f32x8::zero());
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_step<group_lines<Q>>(rows, b / group_blocks * group_bytes<Q> + lead, bytes);
    const f32x8 token_scales = f32x8::load(x.scales + b), token_sums = f32x8::load(x.sums + b);
    alignas(32) float scales[Rows][group_blocks];
    std::array<const std::uint8_t*, Rows> quants;
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x8 row_scales = f32x8::load(scales_of<Q>(rows[r], b));
      (row_scales * token_scales).store(scales[r]);
      if constexpr (quant_offset<Q> != 0) offsets[r] = fma(row_scales, token_sums, offsets[r]);
      quants[r] = quants_of<Q>(rows[r], b);
    }
    for (index j = 0; j < group_blocks; ++j) {
      const token_block<Q> token(x.quants + (b + j) * block_size);
      for (std::size_t r = 0; r < Rows; ++r) {
        const i32x8 sum = token.times(quants[r] + j * quant_bytes<Q>);
        sums[r] = fma(sum.to_float(), f32x8::broadcast(scales[r][j]), sums[r]);
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    result[r] = sums[r].sum() - static_cast<float>(quant_offset<Q>) * offsets[r].sum();
    for (index rest = whole; rest < blocks; ++rest)
      result[r] += dot_block<Q>(quantised_row<Q>(rows[r].row, cols), x, rest);
  }
  return result;
}

namespace detail {

/// y += step * sums, for 32 columns.
inline void add_scaled(i16x16 first, i16x16 last, float step, float* y) {
  const f32x8 s = f32x8::broadcast(step);
  fma(first.first_to_float(), s, f32x8::load(y)).store(y);
  fma(first.last_to_float(), s, f32x8::load(y + 8)).store(y + 8);
  fma(last.first_to_float(), s, f32x8::load(y + 16)).store(y + 16);
  fma(last.last_to_float(), s, f32x8::load(y + 24)).store(y + 24);
}

/// The quants of one group of blocks in each row.
using group_quants = std::array<const std::uint8_t*, sum_rows>;

/// Coefficients factors[r] scale(r, b) of eight blocks b as integers, and what the sums with them are to be
/// multiplied with. Eight products of the largest coefficient and quant must fit into 16 bits.
template <block_format Q>
struct rounded_factors;

/// Products with q8_0 are divided by 128 as they are formed: 8 * 4095 * 127 / 128 < 2^15.
template <>
struct rounded_factors<q8_0> {
  static constexpr float largest = 4095, divisor = 128;
  alignas(32) float steps[group_blocks];
  alignas(32) std::int32_t factors[sum_rows][group_blocks];  // twice in each element

  void set(const std::array<i32x8, sum_rows>& rounded) {
    for (std::size_t r = 0; r < sum_rows; ++r) rounded[r].doubled().store(factors[r]);
  }

  /// y += the sums over the rows for the 32 columns of the j-th block.
  void add_sums(const group_quants& w, index j, float* y) const {
    i16x16 even = i16x16::zero(), odd = i16x16::zero();
    for (std::size_t r = 0; r < sum_rows; ++r) {
      const i16x16 factor = i16x16::broadcast_pair(factors[r][j]);
      const i16x16 quants = i16x16::load_bytes(w[r] + j * quant_bytes<q8_0>);
      even = even + multiply_high(i16x16::even_bytes(quants), factor);
      odd = odd + multiply_high(i16x16::odd_bytes(quants), factor);
    }
    add_scaled(interleaved_first(even, odd), interleaved_last(even, odd), steps[j], y);
  }
};

/// 8 * 127 * 15 less the offset, 8 * 127 * 8, or as much of the other sign: within 2^15.
template <>
struct rounded_factors<q4_0> {
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
    (total * i32x8::broadcast(-q4_0_offset)).doubled().store(offsets);
  }

  /// y += the sums over the rows for the 32 columns of the j-th block.
  void add_sums(const group_quants& w, index j, float* y) const {
    i16x16 first = i16x16::broadcast_pair(offsets[j]), last = first;
    for (std::size_t r = 0; r < sum_rows; r += 2) {
      const i8x32 factor = i8x32::broadcast(pairs[r / 2][j]);
      const i8x32 quants = i8x32::interleaved(w[r] + j * quant_bytes<q4_0>, w[r + 1] + j * quant_bytes<q4_0>);
      first = first + multiply_byte_pairs(quants.low_nibbles(), factor);
      last = last + multiply_byte_pairs(quants.high_nibbles(), factor);
    }
    add_scaled(first, last, steps[j], y);
  }
};

/// The coefficients of blocks b..b+8.
template <block_format Q>
void round_factors(rounded_factors<Q>& result, const row_streams<sum_rows>& rows,
                   const std::array<float, sum_rows>& factors, index b) {
  using rounded = rounded_factors<Q>;
  std::array<f32x8, sum_rows> exact;
  f32x8 largest = f32x8::broadcast(smallest_top);
  for (std::size_t r = 0; r < sum_rows; ++r) {
    exact[r] = f32x8::load(scales_of<Q>(rows[r], b)) * f32x8::broadcast(factors[r]);
    largest = larger_magnitude(exact[r].magnitude(), largest);
  }
  const f32x8 units = f32x8::broadcast(rounded::largest) / largest;
  std::array<i32x8, sum_rows> integers;
  for (std::size_t r = 0; r < sum_rows; ++r) integers[r] = i32x8::rounded(exact[r] * units);
  result.set(integers);
  (largest * f32x8::broadcast(rounded::divisor / rounded::largest)).store(result.steps);
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
  const index blocks = cols / block_size, whole = blocks / group_blocks * group_blocks;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  const index lead = std::min(sum_lead, bytes);
  // One group ahead: the coefficients of a group take long to compute, but little work.
  rounded_factors<Q> coefficients[2];
  if (whole > 0) round_factors<Q>(coefficients[0], rows, factors, 0);
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_step<group_lines<Q>>(rows, b / group_blocks * group_bytes<Q> + lead, bytes);
    const rounded_factors<Q>& rounded = coefficients[b / group_blocks % 2];
    if (b + group_blocks < whole)
      round_factors<Q>(coefficients[(b / group_blocks + 1) % 2], rows, factors, b + group_blocks);
    group_quants quants;
    for (std::size_t r = 0; r < sum_rows; ++r) quants[r] = quants_of<Q>(rows[r], b);
    for (index j = 0; j < group_blocks; ++j) rounded.add_sums(quants, j, y + (b + j) * block_size);
  }
  for (index b = whole; b < blocks; ++b)
    for (std::size_t r = 0; r < sum_rows; ++r)
      add_block<Q>(quantised_row<Q>(rows[r].row, cols), factors[r], b, y);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

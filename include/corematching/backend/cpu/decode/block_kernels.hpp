// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode for formats of grouped blocks, in integers: products of tokens (or coefficients)
// and quants are exact and summed over one block, then scaled.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

namespace detail {

template <grouped_format Q>
using token_block = typename format_kernels<Q>::token_block;
template <grouped_format Q>
using coefficients = typename format_kernels<Q>::coefficients;

/// Cache lines that a group of blocks takes.
template <grouped_format Q>
inline constexpr index group_lines = (group_bytes<Q> + 63) / 64;

/// Where the group of block `b` has its scales, and its quants behind them.
template <grouped_format Q>
const f16* scales_of(const row_stream& stream, index b) {
  return reinterpret_cast<const f16*>(stream.row + b / group_blocks * group_bytes<Q>);
}
template <grouped_format Q>
const std::uint8_t* quants_of(const row_stream& stream, index b) {
  return reinterpret_cast<const std::uint8_t*>(scales_of<Q>(stream, b) + group_blocks);
}

/// One block of a row times one of a token; for the blocks that are left when eight are taken at a time.
template <grouped_format Q>
float dot_block(const quantised_row<Q>& row, const rounded_token<token_quant<Q>>& x, index b) {
  const float sum = token_block<Q>(x.quants + b * block_size).times(row.block(b)).to_float().sum();
  return to_float(*row.scale(b)) * (x.scales[b] * sum - static_cast<float>(Q::quant_offset) * x.sums[b]);
}

}  // namespace detail

/// result[r] = sum over blocks b of scale(r, b) x.scale(b) sum over i of quant(r, b, i) x.quant(b, i), where
/// quant is what was stored less its offset q: sum (stored - q) x = sum stored x - q sum x.
template <grouped_format Q, std::size_t Rows>
std::array<float, Rows> dot_blocks(const row_streams<Rows>& rows,
                                   const rounded_token<detail::token_quant<Q>>& x, index cols) {
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
      if constexpr (Q::quant_offset != 0) offsets[r] = fma(row_scales, token_sums, offsets[r]);
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
    result[r] = sums[r].sum() - static_cast<float>(Q::quant_offset) * offsets[r].sum();
    for (index rest = whole; rest < blocks; ++rest)
      result[r] += dot_block<Q>(quantised_row<Q>(rows[r].row, cols), x, rest);
  }
  return result;
}

namespace detail {

/// The coefficients factors[r] scale(r, b) of the blocks b..b+8.
template <grouped_format Q>
void round_factors(coefficients<Q>& result, const row_streams<sum_rows>& rows,
                   const std::array<float, sum_rows>& factors, index b) {
  using rounded = coefficients<Q>;
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

/// y[i] += factor * w[i] for the 32 weights of block `b`; for the blocks that are left. Inlined, it would
/// take registers from the loop over whole groups.
template <grouped_format Q>
[[gnu::noinline]] void add_block(const quantised_row<Q>& row, float factor, index b, float* y) {
  float weights[block_size];
  dequantise(row, b * block_size, block_size, weights);
  for (index i = 0; i < block_size; ++i) y[b * block_size + i] += factor * weights[i];
}

}  // namespace detail

/// y[i] += sum over r of factors[r] * row r's weight i, i < cols
template <grouped_format Q>
void add_weighted_blocks(const row_streams<sum_rows>& rows, const std::array<float, sum_rows>& factors,
                         index cols, float* y) {
  using namespace detail;
  const index blocks = cols / block_size, whole = blocks / group_blocks * group_blocks;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  const index lead = std::min(sum_lead, bytes);
  // One group ahead: the coefficients of a group take long to compute, but little work.
  coefficients<Q> of_group[2];
  if (whole > 0) round_factors<Q>(of_group[0], rows, factors, 0);
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_step<group_lines<Q>>(rows, b / group_blocks * group_bytes<Q> + lead, bytes);
    const coefficients<Q>& rounded = of_group[b / group_blocks % 2];
    if (b + group_blocks < whole)
      round_factors<Q>(of_group[(b / group_blocks + 1) % 2], rows, factors, b + group_blocks);
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

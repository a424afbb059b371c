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
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

namespace detail {

template <grouped_format Q>
using coefficients = typename format_kernels<Q>::coefficients;

/// Cache lines that a group of blocks takes.
template <grouped_format Q>
inline constexpr index group_lines = (group_bytes<Q> + 63) / 64;

/// Where the group of block `b` has its scales, and its quants behind them, of which it has `in_group`
/// blocks.
template <grouped_format Q>
const f16* scales_of(const row_stream& stream, index b) {
  return reinterpret_cast<const f16*>(stream.row + b / group_blocks * group_bytes<Q>);
}
template <grouped_format Q>
const std::uint8_t* quants_of(const row_stream& stream, index b, index in_group = group_blocks) {
  return reinterpret_cast<const std::uint8_t*>(scales_of<Q>(stream, b) + in_group);
}

inline i16x16 half_block(const std::int16_t* quants) {
  return i16x16::load(quants);
}
inline i16x16 half_block(const std::int8_t* quants) {
  return u8x16::load(reinterpret_cast<const std::uint8_t*>(quants)).widen_signed();
}

/// One block of a row times one of a token; for a block that is left behind whole vectors.
template <grouped_format Q>
float dot_block(const quantised_row<Q>& row, const rounded_token<token_quant<Q>>& x, index b) {
  const auto [first, last] = format_kernels<Q>::quants(row.block(b));
  const token_quant<Q>* const quants = x.quants + b * block_size;
  const i32x8 half = multiply_add_pairs(first, half_block(quants), i32x8::zero());
  const float sum = multiply_add_pairs(last, half_block(quants + 16), half).to_float().sum();
  return to_float(*row.scale(b)) * (x.scales[b] * sum - static_cast<float>(Q::quant_offset) * x.sums[b]);
}

/// Sums over groups of blocks of the products of rows and tokens.
template <grouped_format Q, std::size_t Rows, std::size_t Tokens>
class block_sums {
  using kernels = format_kernels<Q>;
  using tokens = std::array<rounded_token<token_quant<Q>>, Tokens>;

 public:
  /// Adds those of the group of block `b`.
  void add(const row_streams<Rows>& rows, const tokens& x, index b) {
    add_blocks(
        rows, x, b, group_blocks, group_blocks,
        [&](std::size_t r) { return f32x8::load(scales_of<Q>(rows[r], b)); },
        [&](const float* of_blocks) { return f32x8::load(of_blocks + b); });
  }

  /// Adds those of the last group of a row, that of block `b`, which has fewer blocks: of the first `count`
  /// of the `all` that are left, whole vectors.
  void add_rest(const row_streams<Rows>& rows, const tokens& x, index b, index count, index all) {
    const auto padded = [count]<class T>(const T* from) {
      alignas(32) T some[group_blocks] = {};
      std::copy_n(from, count, some);
      return f32x8::load(some);
    };
    add_blocks(
        rows, x, b, count, all, [&](std::size_t r) { return padded(scales_of<Q>(rows[r], b)); },
        [&](const float* of_blocks) { return padded(of_blocks + b); });
  }

  float of(std::size_t t, std::size_t r) const {
    const float sum = sums_.of[t][r].sum();
    if constexpr (Q::quant_offset == 0) return sum;
    return sum - static_cast<float>(Q::quant_offset) * offsets_.of[t][r].sum();
  }

 private:
  template <class RowScales, class TokenFactors>
  [[gnu::always_inline]] void add_blocks(const row_streams<Rows>& rows, const tokens& x, index b, index count,
                                         index in_group, RowScales&& row_scales_of,
                                         TokenFactors&& token_factors_of) {
    alignas(32) float scales[Tokens][Rows][group_blocks];
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x8 row_scales = row_scales_of(r);
      for (std::size_t t = 0; t < Tokens; ++t) {
        (row_scales * token_factors_of(x[t].scales)).store(scales[t][r]);
        if constexpr (Q::quant_offset != 0)
          offsets_.of[t][r] = fma(row_scales, token_factors_of(x[t].sums), offsets_.of[t][r]);
      }
    }
    for (index j = 0; j < count; j += kernels::blocks_at_once) {
      const auto token = for_each_token<Tokens>(
          [&](std::size_t t) { return kernels::vector_of_token(x[t].quants + (b + j) * block_size); });
      for (std::size_t r = 0; r < Rows; ++r) {
        const auto row = kernels::vector_of_row(quants_of<Q>(rows[r], b, in_group) + j * quant_bytes<Q>);
        for (std::size_t t = 0; t < Tokens; ++t)
          sums_.of[t][r] = fma(kernels::products(row, token[t]).to_float(), kernels::spread(scales[t][r] + j),
                               sums_.of[t][r]);
      }
    }
  }

  vector_sums<wide_f32, Rows, Tokens> sums_;
  vector_sums<f32x8, Rows, Tokens> offsets_;
};

}  // namespace detail

/// result[t][r] = sum over blocks b of scale(r, b) x[t].scale(b) sum over i of quant(r, b, i) x[t].quant(b,
/// i), where quant is what was stored less its offset q: sum (stored - q) x = sum stored x - q sum x.
template <grouped_format Q, std::size_t Rows, std::size_t Tokens>
dot_products<Rows, Tokens> dot_blocks(const row_streams<Rows>& rows,
                                      const std::array<rounded_token<detail::token_quant<Q>>, Tokens>& x,
                                      index cols) {
  using namespace detail;
  const index blocks = cols / block_size, whole = blocks / group_blocks * group_blocks;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  const index lead = std::min(dot_lead, bytes);
  block_sums<Q, Rows, Tokens> sums;
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_step<group_lines<Q>>(rows, b / group_blocks * group_bytes<Q> + lead, bytes);
    sums.add(rows, x, b);
  }
  const index left = blocks - whole, in_vectors = left - left % format_kernels<Q>::blocks_at_once;
  if (in_vectors > 0) sums.add_rest(rows, x, whole, in_vectors, left);
  dot_products<Rows, Tokens> result;
  for (std::size_t t = 0; t < Tokens; ++t)
    for (std::size_t r = 0; r < Rows; ++r) {
      result[t][r] = sums.of(t, r);
      for (index rest = whole + in_vectors; rest < blocks; ++rest)
        result[t][r] += dot_block<Q>(quantised_row<Q>(rows[r].row, cols), x[t], rest);
    }
  return result;
}

namespace detail {

/// The coefficients factors[t][r] scale(r, b) of the blocks b..b+8.
template <grouped_format Q, std::size_t Tokens>
void round_factors(std::array<coefficients<Q>, Tokens>& result, const row_streams<sum_rows>& rows,
                   const dot_products<sum_rows, Tokens>& factors, index b) {
  using rounded = coefficients<Q>;
  for (std::size_t t = 0; t < Tokens; ++t) {
    std::array<f32x8, sum_rows> exact;
    f32x8 largest = f32x8::broadcast(smallest_top);
    for (std::size_t r = 0; r < sum_rows; ++r) {
      exact[r] = f32x8::load(scales_of<Q>(rows[r], b)) * f32x8::broadcast(factors[t][r]);
      largest = larger_magnitude(exact[r].magnitude(), largest);
    }
    const f32x8 units = f32x8::broadcast(rounded::largest) / largest;
    std::array<i32x8, sum_rows> integers;
    for (std::size_t r = 0; r < sum_rows; ++r) integers[r] = i32x8::rounded(exact[r] * units);
    result[t].set(integers);
    (largest * f32x8::broadcast(rounded::divisor / rounded::largest)).store(result[t].steps);
  }
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

/// y[t][i] += sum over r of factors[t][r] * row r's weight i, i < cols
template <grouped_format Q, std::size_t Tokens>
void add_weighted_blocks(const row_streams<sum_rows>& rows, const dot_products<sum_rows, Tokens>& factors,
                         index cols, const std::array<float*, Tokens>& y) {
  using namespace detail;
  const index blocks = cols / block_size, whole = blocks / group_blocks * group_blocks;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  const index lead = std::min(sum_lead, bytes);
  // One group ahead: the coefficients of a group take long to compute, but little work.
  std::array<coefficients<Q>, Tokens> of_group[2];
  if (whole > 0) round_factors<Q>(of_group[0], rows, factors, 0);
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_step<group_lines<Q>>(rows, b / group_blocks * group_bytes<Q> + lead, bytes);
    const auto& rounded = of_group[b / group_blocks % 2];
    if (b + group_blocks < whole)
      round_factors<Q>(of_group[(b / group_blocks + 1) % 2], rows, factors, b + group_blocks);
    group_quants quants;
    for (std::size_t r = 0; r < sum_rows; ++r) quants[r] = quants_of<Q>(rows[r], b);
    for (index j = 0; j < group_blocks; ++j)
      coefficients<Q>::add_sums(rounded, quants, j, for_each_token<Tokens>([&](std::size_t t) {
                                  return y[t] + (b + j) * block_size;
                                }));
  }
  for (index b = whole; b < blocks; ++b)
    for (std::size_t t = 0; t < Tokens; ++t)
      for (std::size_t r = 0; r < sum_rows; ++r)
        add_block<Q>(quantised_row<Q>(rows[r].row, cols), factors[t][r], b, y[t]);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

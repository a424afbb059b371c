// SPDX-License-Identifier: Apache-2.0
// What kernels ask of a format of grouped blocks, and what its answers are made of.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/traits.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// Rows that a weighted sum takes at once.
inline constexpr std::size_t sum_rows = 8;

namespace detail {

/// To be specialised, beside this file, with
///   token                 the integers to which decode rounds tokens
///   blocks_at_once        how many blocks one after the other a vector holds in dot products
///   vector_of_token(quants), vector_of_row(blocks)
///                         those of a token and of a row of weights, as products take them
///   products(row, token)  sums of their products, in lanes that each belong to one block
///   spread(scales)        the scales of the blocks, in their lanes
///   coefficients          the factors of eight rows as integers, for weighted sums: largest and divisor,
///                         steps, set(rounded) and add_sums(those of tokens, quants, j, their y)
///   quants(block)         the weights 0..15 and 16..31 of a block
///   quant_pairs(a, b)     the blocks of two rows side by side: lanes 2 i and 2 i + 1 of vector v are weight
///                         8 v + i of each
///   bytes(block, more)    with VNNI, of narrow quants with AVX2: the weights of a block, each `more` too
///                         large, as bytes without sign
///   numbers(block, scale) with AMX: the same two halves as binary32, scaled
/// In sums, quants and quant_pairs, weights are the format's quant_offset too large. For numbers in two
/// planes
///   load<Vector>(bytes)   a vector of numbers
///   load_coarse(upper)    sixteen, as their upper bytes alone say
///   numbers(bytes, inside) with AMX: 32, those that are not inside zero
template <block_format Q>
struct format_kernels;

/// What decode rounds tokens to for weights of format `Q`.
template <block_format Q>
using token_quant = typename format_kernels<Q>::token;

/// The quants of one group of blocks in each row.
using group_quants = std::array<const std::uint8_t*, sum_rows>;

/// y += step * sums, for 32 columns.
inline void add_scaled(i16x16 first, i16x16 last, float step, float* y) {
  const f32x8 s = f32x8::broadcast(step);
  fma(first.first_to_float(), s, f32x8::load(y)).store(y);
  fma(first.last_to_float(), s, f32x8::load(y + 8)).store(y + 8);
  fma(last.first_to_float(), s, f32x8::load(y + 16)).store(y + 16);
  fma(last.last_to_float(), s, f32x8::load(y + 24)).store(y + 24);
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

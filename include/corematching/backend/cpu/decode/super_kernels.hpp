// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in super-blocks, as files of GGUF store them, with tokens that are rounded to 16 bits
// or to 8: products of integers are exact and summed over a group, then scaled; minima meet the sums of a
// token's blocks. Scales and minima of all groups of a block are widened at once.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// sum += the products of a piece's quants with the token's, each group's times its scale.
template <super_format Q, int Piece>
wide_f32 add_products(i16x32 quants, i16x32 token, const float* scales, wide_f32 sum) {
  constexpr index group = Piece * block_size / Q::group;
  if constexpr (Q::group == block_size)
    return fma(multiply_blocks(quants, token).to_float(), wide_f32::broadcast(scales[group]), sum);
#if COREMATCHING_HAS_AVX512
  return fma(multiply_blocks(quants, token).to_float(),
             spread_to_blocks<8>(scales + group / 8 * 8, group % 8), sum);
#else
  const i32x8 low = multiply_add_pairs(quants.low, token.low, i32x8::zero());
  const i32x8 high = multiply_add_pairs(quants.high, token.high, i32x8::zero());
  return fma(high.to_float(), f32x8::broadcast(scales[group + 1]),
             fma(low.to_float(), f32x8::broadcast(scales[group]), sum));
#endif
}

/// The quants of some tokens at one block.
template <super_format Q, std::size_t Tokens>
using quants_of_tokens = std::array<const token_quant<Q>*, Tokens>;

/// sums += the products of pieces First.. of a block of each row, of those that share bytes.
template <super_format Q, int First, std::size_t Rows, std::size_t Tokens>
requires std::same_as<token_quant<Q>, std::int16_t>
[[gnu::always_inline]] inline void add_pieces(const std::array<const typename Q::stored*, Rows>& blocks,
                                              const quants_of_tokens<Q, Tokens>& tokens,
                                              const float (&scales)[Tokens][Rows][Q::groups],
                                              vector_sums<wide_f32, Rows, Tokens>& sums) {
  using kernels = format_kernels<Q>;
  const auto add = [&]<int Piece>(std::size_t r, const std::array<i16x32, Tokens>& x) {
    const i16x32 quants = kernels::template quants<Piece>(*blocks[r]);
    for (std::size_t t = 0; t < Tokens; ++t)
      sums.of[t][r] = add_products<Q, Piece>(quants, x[t], scales[t][r], sums.of[t][r]);
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const std::array<i16x32, Tokens> x[] = {for_each_token<Tokens>(
        [&](std::size_t t) { return i16x32::load(tokens[t] + (First + int{I}) * block_size); })...};
    for (std::size_t r = 0; r < Rows; ++r) (add.template operator()<First + int{I}>(r, x[I]), ...);
  }
  (std::make_index_sequence<kernels::together>());
}

#if COREMATCHING_HAS_AVX2

/// The scales of what each lane of a sum of quads belongs to, from piece `Piece` on.
template <super_format Q, int Piece>
wide_f32 scales_of_quads(const float* scales) {
  constexpr index first = Piece * block_size / Q::group;
  if constexpr (Q::group == block_size && wide_lanes == 8) return wide_f32::broadcast(scales[first]);
  return spread_to_blocks<int{Q::group / 4}>(scales + first / 8 * 8, int{first % 8});
}

template <super_format Q, int First, std::size_t Rows, std::size_t Tokens>
requires std::same_as<token_quant<Q>, std::int8_t>
[[gnu::always_inline]] inline void add_pieces(const std::array<const typename Q::stored*, Rows>& blocks,
                                              const quants_of_tokens<Q, Tokens>& tokens,
                                              const float (&scales)[Tokens][Rows][Q::groups],
                                              vector_sums<wide_f32, Rows, Tokens>& sums) {
  using kernels = format_kernels<Q>;
  static_assert(kernels::together == 2);
  constexpr std::uint8_t offset = kernels::offset_of_bytes;
#if COREMATCHING_HAS_AVX512
  std::array<i8x64, Tokens> x;
  std::array<i32x16, Tokens> start;
  for (std::size_t t = 0; t < Tokens; ++t) {
    x[t] = i8x64::load(tokens[t] + First * block_size);
    start[t] = i32x16::zero();
    if constexpr (offset != 0)
      start[t] = start[t] - multiply_add_quads(u8x64::broadcast(offset), x[t], i32x16::zero());
  }
  for (std::size_t r = 0; r < Rows; ++r) {
    const u8x64 quants = kernels::template bytes_of_two<First>(*blocks[r]);
    for (std::size_t t = 0; t < Tokens; ++t)
      sums.of[t][r] = fma(multiply_add_quads(quants, x[t], start[t]).to_float(),
                          scales_of_quads<Q, First>(scales[t][r]), sums.of[t][r]);
  }
#else
  const auto add = [&]<int Piece>() {
    std::array<i8x32, Tokens> x;
    std::array<i32x8, Tokens> too_much;
    for (std::size_t t = 0; t < Tokens; ++t) {
      x[t] = i8x32::load(tokens[t] + Piece * block_size);
      too_much[t] = multiply_quads(u8x32::broadcast(offset), x[t]);
    }
    for (std::size_t r = 0; r < Rows; ++r) {
      const u8x32 quants = kernels::template bytes<Piece>(*blocks[r]);
      for (std::size_t t = 0; t < Tokens; ++t) {
        i32x8 products = multiply_quads(quants, x[t]);
        if constexpr (offset != 0) products = products - too_much[t];
        sums.of[t][r] = fma(products.to_float(), scales_of_quads<Q, Piece>(scales[t][r]), sums.of[t][r]);
      }
    }
  };
  add.template operator()<First>();
  add.template operator()<First + 1>();
#endif
}

#endif

}  // namespace detail

/// result[t][r] = the dot product of row r with x[t].
template <super_format Q, std::size_t Rows, std::size_t Tokens>
dot_products<Rows, Tokens> dot_super_blocks(
    const row_streams<Rows>& rows, const std::array<rounded_token<detail::token_quant<Q>>, Tokens>& x,
    index cols) {
  using kernels = detail::format_kernels<Q>;
  using stored = typename Q::stored;
  constexpr index size = sizeof(stored), lines = size / 64;
  const index blocks = cols / Q::block, bytes = blocks * size, lead = std::min(dot_lead, bytes);
  // Whether a block has the beginning of a line beyond those that every block has.
  const auto begins_line = [](const std::byte* of) {
    return reinterpret_cast<std::uintptr_t>(of) % 64 + size % 64 >= 64;
  };
  vector_sums<wide_f32, Rows, Tokens> sums;
  vector_sums<f32x8, Rows, Tokens> minima;
  for (index s = 0; s < blocks; ++s) {
    prefetch_step<lines>(rows, s * size + lead, bytes);
    if (begins_line(rows[0].row + s * size)) prefetch_step<1>(rows, s * size + lead + 64 * lines, bytes);
    alignas(32) float scales[Tokens][Rows][Q::groups];
    std::array<const stored*, Rows> block;
    for (std::size_t r = 0; r < Rows; ++r) block[r] = reinterpret_cast<const stored*>(rows[r].row) + s;
    const typename kernels::template row_factors<stored, Rows> of_rows(block);
    detail::quants_of_tokens<Q, Tokens> quants;
    for (std::size_t t = 0; t < Tokens; ++t) {
      const index of_token = s * (Q::block / block_size);
      const typename kernels::token_factors factors(x[t].scales + of_token, x[t].sums + of_token);
      for (std::size_t r = 0; r < Rows; ++r)
        minima.of[t][r] = of_rows.set_scales(r, factors, scales[t][r], minima.of[t][r]);
      quants[t] = x[t].quants + s * Q::block;
    }
    // Scales are loaded one by one from here on: shuffled out of registers, they would hold up what widens
    // quants.
    std::atomic_signal_fence(std::memory_order_acq_rel);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (detail::add_pieces<Q, int{I} * kernels::together>(block, quants, scales, sums), ...);
    }
    (std::make_index_sequence<Q::block / block_size / kernels::together>());
  }
  dot_products<Rows, Tokens> result;
  for (std::size_t t = 0; t < Tokens; ++t)
    for (std::size_t r = 0; r < Rows; ++r) result[t][r] = sums.of[t][r].sum() - minima.of[t][r].sum();
  return result;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

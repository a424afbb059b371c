// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in super-blocks, as files of GGUF store them, with a token that is rounded to 16 bits:
// products of integers are exact and summed over a group, then scaled; minima meet the sums of the token's
// blocks. Scales and minima of all groups of a block are widened at once.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
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
#if COREMATCHING_HAS_AVX512
  const wide_f32 products = multiply_add_pairs(quants, token, wide_i32::zero()).to_float();
  if constexpr (Q::group == block_size) return fma(products, wide_f32::broadcast(scales[group]), sum);
  return fma(products, spread_to_blocks<8>(scales + group / 8 * 8, group % 8), sum);
#else
  const i32x8 low = multiply_add_pairs(quants.low, token.low, i32x8::zero());
  if constexpr (Q::group == block_size) {
    const i32x8 all = multiply_add_pairs(quants.high, token.high, low);
    return fma(all.to_float(), f32x8::broadcast(scales[group]), sum);
  }
  const i32x8 high = multiply_add_pairs(quants.high, token.high, i32x8::zero());
  return fma(high.to_float(), f32x8::broadcast(scales[group + 1]),
             fma(low.to_float(), f32x8::broadcast(scales[group]), sum));
#endif
}

/// sums[r] += the products of pieces First.. of a block of each row, of those that share bytes.
template <super_format Q, int First, std::size_t Rows>
[[gnu::always_inline]] inline void add_pieces(const std::array<const typename Q::stored*, Rows>& blocks,
                                              const std::int16_t* token,
                                              const float (&scales)[Rows][Q::groups],
                                              std::array<wide_f32, Rows>& sums) {
  using kernels = format_kernels<Q>;
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const i16x32 x[] = {i16x32::load(token + (First + int{I}) * block_size)...};
    for (std::size_t r = 0; r < Rows; ++r)
      ((sums[r] = add_products<Q, First + I>(kernels::template quants<First + I>(*blocks[r]), x[I], scales[r],
                                             sums[r])),
       ...);
  }
  (std::make_index_sequence<kernels::together>());
}

}  // namespace detail

/// result[r] = the dot product of row r with `x`.
template <super_format Q, std::size_t Rows>
std::array<float, Rows> dot_super_blocks(const row_streams<Rows>& rows, const rounded_token<std::int16_t>& x,
                                         index cols) {
  using kernels = detail::format_kernels<Q>;
  using stored = typename Q::stored;
  constexpr index size = sizeof(stored), lines = (size + 63) / 64;
  const index blocks = cols / Q::block, bytes = blocks * size, lead = std::min(dot_lead, bytes);
  std::array<wide_f32, Rows> sums;
  std::array<f32x8, Rows> minima;
  sums.fill(wide_f32::zero());
  minima.fill(f32x8::zero());
  for (index s = 0; s < blocks; ++s) {
    prefetch_step<lines>(rows, s * size + lead, bytes);
    const index of_token = s * (Q::block / block_size);
    const typename kernels::token_factors factors(x.scales + of_token, x.sums + of_token);
    alignas(32) float scales[Rows][Q::groups];
    std::array<const stored*, Rows> block;
    for (std::size_t r = 0; r < Rows; ++r) {
      block[r] = reinterpret_cast<const stored*>(rows[r].row) + s;
      minima[r] = kernels::set_scales(*block[r], factors, scales[r], minima[r]);
    }
    // Scales are loaded one by one from here on: shuffled out of registers, they would hold up what widens
    // quants.
    std::atomic_signal_fence(std::memory_order_acq_rel);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (detail::add_pieces<Q, I * kernels::together>(block, x.quants + s * Q::block, scales, sums), ...);
    }
    (std::make_index_sequence<Q::block / block_size / kernels::together>());
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) result[r] = sums[r].sum() - minima[r].sum();
  return result;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

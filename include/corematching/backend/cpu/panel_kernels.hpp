// SPDX-License-Identifier: Apache-2.0
// The kernels of products with many tokens (prefill): the outputs of 16 weight rows for 6 tokens at a time,
// which is as many sums as the registers hold. Both factors are packed into the order in which they are read;
// two panels of weights stay in the first-level cache while tokens stream past them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "corematching/backend/cpu/simd_int16.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Outputs and tokens of one kernel call.
inline constexpr index panel_rows = 16;
inline constexpr index tile_tokens = 6;
/// Panels that take part in one pass over the tokens, and the outputs that they make.
inline constexpr index panels_at_once = 2;
inline constexpr index group_rows = panels_at_once * panel_rows;

/// What weights stored as `T` are multiplied as: the block formats as integers.
template <class T>
using product_type = std::conditional_t<block_format<T>, std::int16_t, float>;

/// Elements of a row that a panel holds: 512 bytes, so that two panels fill half of 32 KiB.
template <class X>
inline constexpr index panel_depth = 512 / index{sizeof(X)};
inline constexpr index blocks_in_panel = panel_depth<std::int16_t> / block_size;

/// 16 weight rows, element by element.
template <class X>
struct weight_panel {
  alignas(64) float weights[panel_depth<float>][panel_rows];
};

/// 16 weight rows as integers, pair by pair of elements, and the scales of their blocks.
template <>
struct weight_panel<std::int16_t> {
  alignas(64) std::int16_t quants[panel_depth<std::int16_t> / 2][panel_rows][2];
  alignas(64) float scales[blocks_in_panel][panel_rows];
};

/// 6 tokens, row by row; integers with the scales of their blocks.
template <class X>
struct token_tile {
  const X* values;      // [tile_tokens][panel_depth]
  const float* scales;  // [tile_tokens][blocks_in_panel], of integers
};

/// sums[t][r] += sum over k < depth of w[r][k] x[t][k]; rows of `sums` lie group_rows apart.
[[gnu::noinline]] inline void add_products(const weight_panel<float>& w, token_tile<float> x, index depth,
                                           float* sums) {
  constexpr std::size_t tokens = tile_tokens;
  // Sums become registers only where every loop over them is unrolled early: with pairs of registers GCC else
  // stores them at each step.
  std::array<f32x8, tokens> low, high;
  COREMATCHING_UNROLL(6)
  for (std::size_t t = 0; t < tokens; ++t) {
    low[t] = f32x8::load(sums + t * group_rows);
    high[t] = f32x8::load(sums + t * group_rows + 8);
  }
  for (index k = 0; k < depth; ++k) {
    const f32x8 w_low = f32x8::load(w.weights[k]), w_high = f32x8::load(w.weights[k] + 8);
    COREMATCHING_UNROLL(6)
    for (std::size_t t = 0; t < tokens; ++t) {
      const f32x8 value = f32x8::broadcast(x.values[t * panel_depth<float> + k]);
      low[t] = fma(w_low, value, low[t]);
      high[t] = fma(w_high, value, high[t]);
    }
  }
  COREMATCHING_UNROLL(6)
  for (std::size_t t = 0; t < tokens; ++t) {
    low[t].store(sums + t * group_rows);
    high[t].store(sums + t * group_rows + 8);
  }
}

/// sums[t][r] += sum over blocks b of w.scale[b][r] x.scale[t][b] sum over k of w[r][b, k] x[t][b, k], the
/// inner sum in integers: 32 * 2^7 * 2^15 < 2^31. A block that `depth` ends in is taken as a whole.
[[gnu::noinline]] inline void add_products(const weight_panel<std::int16_t>& w, token_tile<std::int16_t> x,
                                           index depth, float* sums) {
  constexpr std::size_t tokens = tile_tokens;
  for (index b = 0; b * block_size < depth; ++b) {
    std::array<i32x8, tokens> low, high;
    low.fill(i32x8::zero());
    high.fill(i32x8::zero());
    const std::int16_t* quants = w.quants[b * (block_size / 2)][0];
    const std::int16_t* values = x.values + b * block_size;
    COREMATCHING_UNROLL(16)
    for (index k = 0; k < block_size; k += 2) {
      const i16x16 w_low = i16x16::load(quants + k * panel_rows);
      const i16x16 w_high = i16x16::load(quants + k * panel_rows + 16);
      for (std::size_t t = 0; t < tokens; ++t) {
        std::int32_t pair;
        std::memcpy(&pair, values + t * panel_depth<std::int16_t> + k, sizeof pair);
        const i16x16 token = i16x16::broadcast_pair(pair);
        low[t] = multiply_add_pairs(w_low, token, low[t]);
        high[t] = multiply_add_pairs(w_high, token, high[t]);
        low[t].pin();
        high[t].pin();
      }
    }
    const f32x8 low_scales = f32x8::load(w.scales[b]), high_scales = f32x8::load(w.scales[b] + 8);
    for (std::size_t t = 0; t < tokens; ++t) {
      const f32x8 scale = f32x8::broadcast(x.scales[t * blocks_in_panel + b]);
      float* to = sums + t * group_rows;
      fma(low[t].to_float(), low_scales * scale, f32x8::load(to)).store(to);
      fma(high[t].to_float(), high_scales * scale, f32x8::load(to + 8)).store(to + 8);
    }
    // The next block reads the sums from memory again; kept in registers they would be spilled.
    std::atomic_signal_fence(std::memory_order_acq_rel);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

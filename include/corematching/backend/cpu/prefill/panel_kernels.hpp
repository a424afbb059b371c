// SPDX-License-Identifier: Apache-2.0
// The kernels of products with many tokens (prefill): the outputs of two vectors of weight rows for as many
// tokens at a time as leave the sums in registers, 16 rows for 6 tokens or, with AVX-512, 32 rows for 12.
// Both factors are packed into the order in which they are read; two panels of weights stay in the
// first-level cache while tokens stream past them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Outputs and tokens of one kernel call.
inline constexpr index panel_rows = 2 * wide_lanes;
inline constexpr index panel_tokens = COREMATCHING_HAS_AVX512 ? 12 : 6;
/// Panels that take part in one pass over the tokens, and the outputs that they make.
inline constexpr index panels_at_once = 2;
inline constexpr index group_rows = panels_at_once * panel_rows;

/// The formats whose weights are multiplied as integers; others are widened while they are packed.
template <class T>
inline constexpr bool integer_panels = block_format<T> && !moved_format<T> && !number_plane_format<T>;

/// What tokens are multiplied as by weights stored as `T` in sums along the rows of the weights: where there
/// is a dot product of bytes, those of the block formats as bytes.
template <class T>
using product_type =
    std::conditional_t<integer_panels<T>,
                       std::conditional_t<COREMATCHING_HAS_VNNI, std::int8_t, std::int16_t>, float>;
/// The same in sums across the rows, where tokens take over the scales of the weights that they meet.
template <class T>
using sum_type = std::conditional_t<integer_panels<T>, std::int16_t, float>;

/// What panels of bytes hold their weights larger by: the instruction takes bytes without sign.
inline constexpr int panel_byte_offset = 128;

/// Elements of a row that a panel holds: two panels fill half of 32 KiB.
template <class X>
inline constexpr index panel_depth = 8192 / panel_rows / index{sizeof(X)};
template <class X>
inline constexpr index blocks_in_panel = panel_depth<X> / block_size;

/// Weight rows, element by element.
template <class X>
struct weight_panel {
  alignas(64) float weights[panel_depth<float>][panel_rows];
};

/// Weight rows as integers, pair by pair of elements, and the scales of their blocks.
template <>
struct weight_panel<std::int16_t> {
  alignas(64) std::int16_t quants[panel_depth<std::int16_t> / 2][panel_rows][2];
  alignas(64) float scales[blocks_in_panel<std::int16_t>][panel_rows];
};

/// Tokens, row by row; integers with the scales of their blocks.
template <class X>
struct token_panel {
  const X* values;                      // [panel_tokens][panel_depth]
  const float* scales = nullptr;        // [panel_tokens][blocks_in_panel], of integers
  const std::int32_t* start = nullptr;  // [panel_tokens][blocks_in_panel], of bytes: what sums begin with
  const X* next = nullptr;              // what the next panel begins with, or goes on with

  /// Asks for the next panel, a part of it for each element `k` of the sum: rows of tokens are too short for
  /// the processor to foresee them, and all at once they would hold up what this panel reads.
  void prefetch_next(index k) const { prefetch(next + k * (panel_tokens / panels_at_once)); }
};

/// sums[r] += scale products[r] * w_scales[r] for a panel's rows.
inline void add_block_sums(wide_i32 low, wide_i32 high, const float* w_scales, wide_f32 scale, float* sums) {
  const wide_f32 low_scales = wide_f32::load(w_scales), high_scales = wide_f32::load(w_scales + wide_lanes);
  fma(low.to_float(), low_scales * scale, wide_f32::load(sums)).store(sums);
  fma(high.to_float(), high_scales * scale, wide_f32::load(sums + wide_lanes)).store(sums + wide_lanes);
}

/// sums[t][r] += sum over k < depth of w[r][k] x[t][k]; rows of `sums` lie group_rows apart.
[[gnu::noinline]] inline void add_products(const weight_panel<float>& w, token_panel<float> x, index depth,
                                           float* sums) {
  constexpr std::size_t tokens = panel_tokens;
  // Sums become registers only where every loop over them is unrolled early: with pairs of registers GCC else
  // stores them at each step.
  std::array<wide_f32, tokens> low, high;
  COREMATCHING_UNROLL(12)
  for (std::size_t t = 0; t < tokens; ++t) {
    low[t] = wide_f32::load(sums + t * group_rows);
    high[t] = wide_f32::load(sums + t * group_rows + wide_lanes);
  }
  for (index k = 0; k < depth; ++k) {
    x.prefetch_next(k);
    const wide_f32 w_low = wide_f32::load(w.weights[k]), w_high = wide_f32::load(w.weights[k] + wide_lanes);
    COREMATCHING_UNROLL(12)
    for (std::size_t t = 0; t < tokens; ++t) {
      const wide_f32 value = wide_f32::broadcast(x.values[t * panel_depth<float> + k]);
      low[t] = fma(w_low, value, low[t]);
      high[t] = fma(w_high, value, high[t]);
    }
  }
  COREMATCHING_UNROLL(12)
  for (std::size_t t = 0; t < tokens; ++t) {
    low[t].store(sums + t * group_rows);
    high[t].store(sums + t * group_rows + wide_lanes);
  }
}

/// sums[t][r] += sum over blocks b of w.scale[b][r] x.scale[t][b] sum over k of w[r][b, k] x[t][b, k], the
/// inner sum in integers: 32 * 2^7 * 2^15 < 2^31. A block that `depth` ends in is taken as a whole.
[[gnu::noinline]] inline void add_products(const weight_panel<std::int16_t>& w, token_panel<std::int16_t> x,
                                           index depth, float* sums) {
  constexpr std::size_t tokens = panel_tokens;
  for (index b = 0; b * block_size < depth; ++b) {
    std::array<wide_i32, tokens> low, high;
    low.fill(wide_i32::zero());
    high.fill(wide_i32::zero());
    const std::int16_t* quants = w.quants[b * (block_size / 2)][0];
    const std::int16_t* values = x.values + b * block_size;
    COREMATCHING_UNROLL(16)
    for (index k = 0; k < block_size; k += 2) {
      x.prefetch_next(b * block_size + k);
      const wide_i16 w_low = wide_i16::load(quants + k * panel_rows);
      const wide_i16 w_high = wide_i16::load(quants + k * panel_rows + 2 * wide_lanes);
      for (std::size_t t = 0; t < tokens; ++t) {
        std::int32_t pair;
        std::memcpy(&pair, values + t * panel_depth<std::int16_t> + k, sizeof pair);
        const wide_i16 token = wide_i16::broadcast_pair(pair);
        low[t] = multiply_add_pairs(w_low, token, low[t]);
        high[t] = multiply_add_pairs(w_high, token, high[t]);
        low[t].pin();
        high[t].pin();
      }
    }
    for (std::size_t t = 0; t < tokens; ++t)
      add_block_sums(low[t], high[t], w.scales[b],
                     wide_f32::broadcast(x.scales[t * blocks_in_panel<std::int16_t> + b]),
                     sums + t * group_rows);
    // The next block reads the sums from memory again; kept in registers they would be spilled.
    std::atomic_signal_fence(std::memory_order_acq_rel);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

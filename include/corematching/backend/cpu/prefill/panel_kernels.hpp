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
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/moved.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/q4_0.hpp"
#include "corematching/core/formats/q4_0_planes.hpp"
#include "corematching/core/formats/q4_k_planes.hpp"
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

/// The formats that weights are rounded to, in blocks along the rows.
template <class T>
concept rounded_format = block_format<T> && !moved_format<T> && !number_plane_format<T>;

/// The formats whose weights are multiplied as integers in sums along the rows; others are widened while they
/// are packed, and so are those in blocks of neurons, along whose rows each weight has a scale of its own.
template <class T>
inline constexpr bool integer_panels = block_format<T> && !neuron_format<T> && !number_plane_format<T>;

/// How many bits quants have that are stored without sign; others are taken for bytes.
template <class T>
inline constexpr int quant_bits = 8;
template <>
inline constexpr int quant_bits<q4_0> = 4;
template <>
inline constexpr int quant_bits<q4_0_planes> = 4;
template <>
inline constexpr int quant_bits<q4_k> = 4;
template <>
inline constexpr int quant_bits<q4_k_planes> = 4;
template <>
inline constexpr int quant_bits<q5_k> = 5;
template <neuron_format T>
inline constexpr int quant_bits<T> = T::bits;

/// How many products of such quants and bytes up to 127 fit into a sum of 16 bits.
template <class T>
inline constexpr int short_products = 32767 / (127 * ((1 << quant_bits<T>)-1));

/// Those that meet tokens of 8 bits: where there is a dot product of bytes all that are rounded to, and with
/// AVX2 alone those of which products of bytes can be summed in 16 bits. Others meet tokens of 16 bits, and
/// so do all where COREMATCHING_PREFILL_TOKEN_BITS is 16.
template <class T>
inline constexpr bool byte_panels = COREMATCHING_PREFILL_TOKEN_BITS == 8 && COREMATCHING_HAS_AVX2 &&
                                    (quant_bits<T> <= 5 || (COREMATCHING_HAS_VNNI && rounded_format<T>));

/// What tokens are multiplied as by weights stored as `T` where sums run along their blocks, and in sums
/// along the rows of the weights.
template <class T>
using integer_type = std::conditional_t<byte_panels<T>, std::int8_t, std::int16_t>;
template <class T>
using product_type = std::conditional_t<integer_panels<T>, integer_type<T>, float>;
/// The same in sums across the rows, where tokens take over the scales of the weights that they meet.
template <class T>
using sum_type = std::conditional_t<rounded_format<T>, std::int16_t, float>;

/// Weights that share a scale, and whether they share a minimum, which their quants are above.
template <class T>
struct panel_factors {
  static constexpr index group = block_size;
  static constexpr bool has_minimum = false;
};
template <moved_format T>
struct panel_factors<T> {
  static constexpr index group = T::group;
  static constexpr bool has_minimum = T::has_minimum;
};
/// The fewest weights that share them: sums of tokens are kept for as many elements.
inline constexpr index least_group = 16;

/// What bytes without sign hold weights larger by where they have no minimum.
inline constexpr int panel_byte_offset = COREMATCHING_HAS_VNNI ? 128 : q4_0::quant_offset;

/// Elements of a row that a panel holds: two panels fill half of 32 KiB.
template <class X>
inline constexpr index panel_depth = 8192 / panel_rows / index{sizeof(X)};
template <class X>
inline constexpr index blocks_in_panel = panel_depth<X> / block_size;
template <class X>
inline constexpr index groups_in_panel = panel_depth<X> / least_group;

/// Weight rows, element by element.
template <class X>
struct weight_panel {
  alignas(64) float weights[panel_depth<float>][panel_rows];
};

/// Weight rows as integers, pair by pair of elements, and the scales and minima of their groups.
template <>
struct weight_panel<std::int16_t> {
  alignas(64) std::int16_t quants[panel_depth<std::int16_t> / 2][panel_rows][2];
  alignas(64) float scales[groups_in_panel<std::int16_t>][panel_rows];
  alignas(64) float minima[groups_in_panel<std::int16_t>][panel_rows];
};

/// Tokens, row by row; integers with the scales of their blocks.
template <class X>
struct token_panel {
  const X* values;                      // [panel_tokens][panel_depth]
  const float* scales = nullptr;        // [panel_tokens][blocks_in_panel], of integers
  const float* sums = nullptr;          // [panel_tokens][groups_in_panel], of integers: scale times sum
  const std::int32_t* start = nullptr;  // [panel_tokens][blocks_in_panel], of bytes: what sums begin with
  const X* next = nullptr;              // what the next panel begins with, or goes on with

  /// Asks for the next panel, a part of it for each element `k` of the sum: rows of tokens are too short for
  /// the processor to foresee them, and all at once they would hold up what this panel reads.
  void prefetch_next(index k) const { prefetch(next + k * (panel_tokens / panels_at_once)); }
};

/// The elements first..first + Group of a token of a panel, scale times sum.
template <index Group, class X>
float sum_of_group(token_panel<X> x, index t, index first) {
  const float* sums = x.sums + t * groups_in_panel<X> + first / least_group;
  if constexpr (Group == least_group) return *sums;
  return sums[0] + sums[1];
}

/// The outputs of a panel's rows for one token, which groups of products are added to.
struct panel_outputs {
  wide_f32 low, high;

  explicit panel_outputs(const float* sums)
      : low(wide_f32::load(sums)), high(wide_f32::load(sums + wide_lanes)) {}
  void store(float* sums) const {
    low.store(sums);
    high.store(sums + wide_lanes);
  }

  /// += scale products[r] w_scales[r]
  void add(wide_i32 low_products, wide_i32 high_products, const float* w_scales, float scale) {
    const wide_f32 s = wide_f32::broadcast(scale);
    low = fma(low_products.to_float(), wide_f32::load(w_scales) * s, low);
    high = fma(high_products.to_float(), wide_f32::load(w_scales + wide_lanes) * s, high);
  }
  /// += sum w_minima[r]
  void add(const float* w_minima, float sum) {
    const wide_f32 s = wide_f32::broadcast(sum);
    low = fma(wide_f32::load(w_minima), s, low);
    high = fma(wide_f32::load(w_minima + wide_lanes), s, high);
  }
};

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

/// sums[t][r] += sum over groups g of w.scale[g][r] x.scale[t] sum over k of w[r][g, k] x[t][g, k], and of
/// w.minimum[g][r] x.sum[t][g] where there is one. The inner sum is in integers: 32 * 2^7 * 2^15 < 2^31. A
/// group that `depth` ends in is taken as a whole.
template <index Group, bool Minimum>
[[gnu::noinline]] inline void add_products(const weight_panel<std::int16_t>& w, token_panel<std::int16_t> x,
                                           index depth, float* sums) {
  constexpr std::size_t tokens = panel_tokens;
  for (index first = 0, g = 0; first < depth; first += Group, ++g) {
    std::array<wide_i32, tokens> low, high;
    low.fill(wide_i32::zero());
    high.fill(wide_i32::zero());
    const std::int16_t* quants = w.quants[first / 2][0];
    const std::int16_t* values = x.values + first;
    COREMATCHING_UNROLL(16)
    for (index k = 0; k < Group; k += 2) {
      x.prefetch_next(first + k);
      const wide_i16 w_low = wide_i16::load(quants + k * panel_rows);
      const wide_i16 w_high = wide_i16::load(quants + k * panel_rows + 2 * wide_lanes);
      COREMATCHING_UNROLL(12)
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
    COREMATCHING_UNROLL(12)
    for (std::size_t t = 0; t < tokens; ++t) {
      panel_outputs all(sums + t * group_rows);
      all.add(low[t], high[t], w.scales[g], x.scales[t * blocks_in_panel<std::int16_t> + first / block_size]);
      if constexpr (Minimum) all.add(w.minima[g], sum_of_group<Group>(x, t, first));
      all.store(sums + t * group_rows);
    }
    // The next group reads the sums from memory again; kept in registers they would be spilled.
    std::atomic_signal_fence(std::memory_order_acq_rel);
  }
}

/// The same for weights stored as `T`.
template <class T>
void add_panel(const weight_panel<float>& w, token_panel<float> x, index depth, float* sums) {
  add_products(w, x, depth, sums);
}
template <class T>
void add_panel(const weight_panel<std::int16_t>& w, token_panel<std::int16_t> x, index depth, float* sums) {
  add_products<panel_factors<T>::group, panel_factors<T>::has_minimum>(w, x, depth, sums);
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Weighted sums of neurons that share their scales (core/formats/neuron_blocks.hpp): the selected neurons of
// a block are summed in the quants' own units, times factors that are rounded to 16 bits, and the sum is
// scaled, column by column, once a block.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/q4_0.hpp"
#include "corematching/backend/cpu/formats/q8_0.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// What the places of a block are multiplied by, rounded to integers of one scale: zeros behind the last
/// place.
struct rounded_places {
  alignas(64) std::int16_t quants[block_size] = {};
  float scale;
  float total;  // scale times the sum of the quants

  rounded_places(const float* x, index count) {
    float padded[block_size] = {};
    std::copy_n(x, count, padded);
    total = round_block(padded, quants, scale);
  }
  /// Those of places i and i + 1.
  i16x16 pair(index i) const {
    std::int32_t both;
    std::memcpy(&both, quants + i, sizeof both);
    return i16x16::broadcast_pair(both);
  }
};

/// y += scales * x.scale * sums + x.total * (minima - offset * scales)
template <neuron_format Q>
void add_scaled_block(const std::byte* block, const float* sums, const rounded_places& x, index cols,
                      float* y) {
  const neuron_layout<Q> layout{cols};
  const auto* const scales = reinterpret_cast<const float*>(block + layout.scales_at(0));
  const auto* const minima = reinterpret_cast<const float*>(block + layout.minima_at(0));
  const f32x8 unit = f32x8::broadcast(x.scale), total = f32x8::broadcast(x.total),
              offset = f32x8::broadcast(-float{Q::quant_offset} * x.total);
  for (index j = 0; j < cols; j += 8) {
    f32x8 quants = f32x8::load(sums + j) * unit;
    if constexpr (Q::quant_offset != 0) quants = quants + offset;
    f32x8 sum = fma(f32x8::load(scales + j), quants, f32x8::load(y + j));
    if constexpr (Q::has_minimum) sum = fma(f32x8::load(minima + j), total, sum);
    sum.store(y + j);
  }
}

/// sums += the quants of eight neurons times those of the places from `first` on.
template <neuron_format Q>
void add_neurons(const row_streams<sum_rows>& rows, const rounded_places& x, index first, index cols,
                 float* sums) {
  using kernels = format_kernels<std::conditional_t<Q::bits == 8, q8_0, q4_0>>;  // which store them alike
  const neuron_layout<Q> layout{cols};
  constexpr index line = 64 * 8 / Q::bits;  // columns in a cache line
  const index bytes = layout.neuron_bytes(), lead = std::min(sum_lead, bytes);
  const auto quants = [&](std::size_t r, index j) {
    return reinterpret_cast<const std::uint8_t*>(rows[r].row) + j * Q::bits / 8;
  };
  for (index j = 0; j < cols; j += block_size) {
    if (j % line == 0) prefetch_step<1>(rows, j * Q::bits / 8 + lead, bytes);
    std::array<i32x8, 4> products;
    products.fill(i32x8::zero());
    for (std::size_t r = 0; r < sum_rows; r += 2) {
      const auto pairs = kernels::quant_pairs(quants(r, j), quants(r + 1, j));
      const i16x16 factors = x.pair(first + static_cast<index>(r));
      for (std::size_t v = 0; v < 4; ++v) products[v] = multiply_add_pairs(pairs[v], factors, products[v]);
    }
    for (std::size_t v = 0; v < 4; ++v) {
      float* const to = sums + j + 8 * static_cast<index>(v);
      (f32x8::load(to) + products[v].to_float()).store(to);
    }
  }
}

/// sums += the quants of the neurons at places first..last, all of one block, times those of `x`, which
/// begins with the first of them; what lies at places up to `end` is read next.
template <neuron_format Q>
void sum_quants(const stored_view<>& w, const neurons& selection, const rounded_places& x, index first,
                index last, index end, float* sums) {
  const neuron_layout<Q> layout{w.cols};
  const auto quants = [&](index place) {
    return w.data + layout.quants_at(row_of(selection, std::min(place, end - 1)));
  };
  constexpr auto at_once = static_cast<index>(sum_rows);
  for (index place = first; place < last; place += at_once) {
    row_streams<sum_rows> rows;
    for (index r = 0; r < at_once; ++r) {
      // Behind the last place of the block its own row again, times zero.
      const index here = std::min(place + r, last - 1);
      rows[static_cast<std::size_t>(r)] = {quants(here), quants(here + at_once)};
    }
    add_neurons<Q>(rows, x, place - first, w.cols, sums);
  }
}

/// partial += sum over places first..last of x[place] * w[row of place], as far as the step goes; `sums` has
/// room for a row. Blocks are not divided between steps.
template <neuron_format Q>
void accumulate_neurons(float* partial, float* sums, const float* x, const stored_view<>& w,
                        const neurons& selection, index first, index last, walk_step step) {
  const neuron_layout<Q> layout{w.cols};
  const auto block_of = [&](index place) { return row_of(selection, place) / Q::group; };
  const auto next_block = [&](index place) {
    while (place > first && place < last && block_of(place) == block_of(place - 1)) ++place;
    return place;
  };
  const index end = next_block(first + step.end(last - first));
  for (index place = next_block(first + step.begin(last - first)); place < end;) {
    const index behind = next_block(place + 1);
    std::fill_n(sums, w.cols, 0.0f);
    const rounded_places factors(x + place, behind - place);
    sum_quants<Q>(w, selection, factors, place, behind, last, sums);
    add_scaled_block<Q>(w.data + layout.scales_at(row_of(selection, place)), sums, factors, w.cols, partial);
    place = behind;
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Weighted sums of neurons that share their scales (core/formats/neuron_blocks.hpp): the selected neurons of
// a block are summed in the quants' own units, and the sum is scaled, column by column, once a block.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// y += scales * sums + total * minima
template <neuron_format Q>
void add_scaled_block(const std::byte* block, const float* sums, float total, index cols, float* y) {
  const neuron_layout<Q> layout{cols};
  const auto* const scales = reinterpret_cast<const float*>(block + layout.scales_at(0));
  const auto* const minima = reinterpret_cast<const float*>(block + layout.minima_at(0));
  for (index j = 0; j < cols; j += 8) {
    f32x8 sum = fma(f32x8::load(scales + j), f32x8::load(sums + j), f32x8::load(y + j));
    if constexpr (Q::has_minimum) sum = fma(f32x8::load(minima + j), f32x8::broadcast(total), sum);
    sum.store(y + j);
  }
}

/// sums += the sum over the places first..last, all of one block, of x[place] times the neuron's quants; what
/// lies at places up to `end` is read next. Returns the sum of x.
template <neuron_format Q>
float sum_quants(const stored_view<>& w, const neurons& selection, const float* x, index first, index last,
                 index end, float* sums) {
  const neuron_layout<Q> layout{w.cols};
  const auto quants = [&](index place) {
    return w.data + layout.quants_at(row_of(selection, std::min(place, end - 1)));
  };
  constexpr auto at_once = static_cast<index>(sum_rows);
  float total = 0;
  for (index place = first; place < last; place += at_once) {
    row_streams<sum_rows> rows;
    dot_products<sum_rows, 1> factors{};
    for (index r = 0; r < at_once; ++r) {
      // Behind the last place of the block its own row again, times zero.
      const index here = std::min(place + r, last - 1);
      rows[static_cast<std::size_t>(r)] = {quants(here), quants(here + at_once)};
      if (place + r < last) total += factors[0][static_cast<std::size_t>(r)] = x[here];
    }
    add_weighted_rows<std::int8_t>(rows, factors, w.cols, std::array{sums});
  }
  return total;
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
    const float total = sum_quants<Q>(w, selection, x, place, behind, last, sums);
    add_scaled_block<Q>(w.data + layout.scales_at(row_of(selection, place)), sums, total, w.cols, partial);
    place = behind;
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

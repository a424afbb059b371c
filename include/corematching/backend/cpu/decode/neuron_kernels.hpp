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

/// The factors of a block, and of the one that is read next.
struct factor_rows {
  const float* scales;
  const float* minima;
  const float* next;

  template <neuron_format Q>
  static factor_rows of(const std::byte* block, const std::byte* next, index cols) {
    const neuron_layout<Q> layout{cols};
    return {reinterpret_cast<const float*>(block + layout.scales_at(0)),
            reinterpret_cast<const float*>(block + layout.minima_at(0)),
            reinterpret_cast<const float*>(next + layout.scales_at(0))};
  }
};

/// y[j] += scales[j] * x.scale * sums + x.total * (minima[j] - offset * scales[j]), for eight columns
template <neuron_format Q>
void add_scaled(f32x8 sums, const factor_rows& of, const rounded_places& x, index j, float* y) {
  f32x8 quants = sums * f32x8::broadcast(x.scale);
  if constexpr (Q::quant_offset != 0) quants = quants + f32x8::broadcast(-float{Q::quant_offset} * x.total);
  f32x8 sum = fma(f32x8::load(of.scales + j), quants, f32x8::load(y + j));
  if constexpr (Q::has_minimum) sum = fma(f32x8::load(of.minima + j), f32x8::broadcast(x.total), sum);
  sum.store(y + j);
}

/// Asks for the factors that are read a little later, of 16 columns from `j` on.
template <neuron_format Q>
void prefetch_factors(const factor_rows& of, index j, index cols) {
  constexpr index lead = sum_lead / index{sizeof(float)};
  if (j + lead < cols) {
    prefetch(reinterpret_cast<const std::byte*>(of.scales + j + lead));
    if constexpr (Q::has_minimum) prefetch(reinterpret_cast<const std::byte*>(of.minima + j + lead));
  } else if (const index behind = j + lead - cols; behind < cols) {
    prefetch(reinterpret_cast<const std::byte*>(of.next + behind));
    if constexpr (Q::has_minimum) prefetch(reinterpret_cast<const std::byte*>(of.next + cols + behind));
  }
}

/// Neurons of a block that are summed at once: eight, or those that are left.
struct neuron_pass {
  row_streams<sum_rows> rows;  // behind the last one it again
  index first, count;          // of the block's places
  bool begins, ends;           // the sum over the block
};

/// Adds the quants of the neurons of a pass times x: to `sums`, and at the end of a block, scaled, to `y`.
template <neuron_format Q>
void add_neurons(const neuron_pass& pass, const rounded_places& x, const factor_rows& factors, index cols,
                 float* sums, float* y) {
  using kernels = format_kernels<std::conditional_t<Q::bits == 8, q8_0, q4_0>>;  // which store them alike
  const neuron_layout<Q> layout{cols};
  constexpr index line = 64 * 8 / Q::bits;  // columns in a cache line
  const index bytes = layout.neuron_bytes(), lead = std::min(sum_lead, bytes);
  const auto quants = [&](index r, index j) {
    return reinterpret_cast<const std::uint8_t*>(pass.rows[static_cast<std::size_t>(r)].row) +
           j * Q::bits / 8;
  };
  for (index j = 0; j < cols; j += block_size) {
    if (j % line == 0) prefetch_step<1>(pass.rows, j * Q::bits / 8 + lead, bytes);
    std::array<i32x8, 4> products;
    products.fill(i32x8::zero());
    for (index r = 0; r < pass.count; r += 2) {  // behind an odd last one it again, times zero
      const auto pairs = kernels::quant_pairs(quants(r, j), quants(r + 1, j));
      const i16x16 both = x.pair(pass.first + r);
      for (std::size_t v = 0; v < 4; ++v) products[v] = multiply_add_pairs(pairs[v], both, products[v]);
    }
    std::array<f32x8, 4> all;
    for (std::size_t v = 0; v < 4; ++v) {
      all[v] = products[v].to_float();
      if (!pass.begins) all[v] = f32x8::load(sums + j + 8 * static_cast<index>(v)) + all[v];
    }
    if (pass.ends) {
      for (index at = j; at < j + block_size; at += 16) prefetch_factors<Q>(factors, at, cols);
      for (std::size_t v = 0; v < 4; ++v) add_scaled<Q>(all[v], factors, x, j + 8 * static_cast<index>(v), y);
    } else {
      for (std::size_t v = 0; v < 4; ++v) all[v].store(sums + j + 8 * static_cast<index>(v));
    }
  }
}

/// y += the neurons at places first..last, all of one block, times x; `factors` are those of the places. What
/// lies at places up to `end` is read next. `sums` has room for a row.
template <neuron_format Q>
void add_block(float* y, float* sums, const stored_view<>& w, const neurons& selection,
               const rounded_places& factors, index first, index last, index end) {
  const neuron_layout<Q> layout{w.cols};
  const auto row = [&](index place) { return row_of(selection, std::min(place, end - 1)); };
  const auto block = [&](index place) { return w.data + row(place) / Q::group * layout.block_bytes(); };
  const auto of_block = factor_rows::of<Q>(block(first), block(last), w.cols);
  for (index place = first; place < last;) {
    const index count = std::min(index{sum_rows}, last - place);
    neuron_pass pass{{}, place - first, count, place == first, place + count == last};
    for (index r = 0; r < index{sum_rows}; ++r)
      pass.rows[static_cast<std::size_t>(r)] = {
          w.data + layout.quants_at(row(place + std::min(r, count - 1))),
          w.data + layout.quants_at(row(place + count + r))};
    add_neurons<Q>(pass, factors, of_block, w.cols, sums, y);
    place += count;
  }
}

/// partial += sum over places first..last of x[place] * w[row of place], as far as the step goes; `sums` has
/// room for a row. Blocks are not divided between steps.
template <neuron_format Q>
void accumulate_neurons(float* partial, float* sums, const float* x, const stored_view<>& w,
                        const neurons& selection, index first, index last, walk_step step) {
  const auto block_of = [&](index place) { return row_of(selection, place) / Q::group; };
  const auto next_block = [&](index place) {
    while (place > first && place < last && block_of(place) == block_of(place - 1)) ++place;
    return place;
  };
  const index end = next_block(first + step.end(last - first));
  for (index place = next_block(first + step.begin(last - first)); place < end;) {
    const index behind = next_block(place + 1);
    add_block<Q>(partial, sums, w, selection, rounded_places(x + place, behind - place), place, behind, last);
    place = behind;
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Weights of the block formats into panels of integers (panel_kernels.hpp), which meet tokens of 16 bits.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/prefill/packed_panels.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/moved.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// A block of eight rows: elements 0..15 of each, and 16..31.
using row_blocks = std::array<std::array<i16x16, 8>, 2>;

/// Block `b` of rows part..part + 8.
inline void set_quants(weight_panel<std::int16_t>& w, index b, std::size_t part, row_blocks& of_rows) {
  index pair = b * (block_size / 2);
  for (auto& half : of_rows) {
    transpose(half);
    for (const i16x16& pairs : half) pairs.store(w.quants[pair++][part]);
  }
}

/// Elements first..first + count of rows in blocks; `first` and `count` in whole blocks.
template <rounded_format Q>
void pack_rows(weight_panel<std::int16_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  const i16x16 offset = i16x16::broadcast(static_cast<std::int16_t>(Q::quant_offset));
  for (index b = 0; b < count / block_size; ++b)
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      row_blocks quants;
      for (std::size_t r = 0; r < 8; ++r) {
        const auto row = blocks_of_row<Q>(rows.w, rows.row(part + r));
        const auto halves = format_kernels<Q>::quants(row.block(first / block_size + b));
        for (std::size_t half = 0; half < 2; ++half) quants[half][r] = halves[half] - offset;
        w.scales[b][part + r] = to_float(*row.scale(first / block_size + b));
      }
      set_quants(w, b, part, quants);
    }
}

/// The same of rows whose blocks hold their factors as numbers.
template <wide_format Q>
void pack_rows(weight_panel<std::int16_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  for (index b = 0; b < count / block_size; ++b)
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      row_blocks quants;
      for (std::size_t r = 0; r < 8; ++r) {
        const std::byte* const block =
            blocks_of_row<Q>(rows.w, rows.row(part + r)).data + (first / block_size + b) * Q::bytes;
        float factors[Q::factors];
        std::memcpy(factors, block, sizeof factors);
        for (index i = 0; i < Q::scales; ++i) {
          w.scales[b * Q::scales + i][part + r] = factors[i];
          if constexpr (Q::has_minimum) w.minima[b * Q::scales + i][part + r] = factors[Q::scales + i];
        }
        const auto* const bytes = reinterpret_cast<const std::uint8_t*>(block + sizeof factors);
        for (std::size_t half = 0; half < 2; ++half)
          quants[half][r] = u8x16::load(bytes + 16 * half).widen_signed();
      }
      set_quants(w, b, part, quants);
    }
}

/// Calls body<Piece>(b) for the blocks b of 32 weights from element `first` of a row on, each a piece of a
/// super-block.
template <class Body>
void for_each_piece(index first, index count, Body&& body) {
  for (index b = 0; b < count / block_size; ++b) [&]<int... Piece>(std::integer_sequence<int, Piece...>) {
      const index piece = (first / block_size + b) % index{sizeof...(Piece)};
      (void)((piece == Piece && (body.template operator()<Piece>(b), true)) || ...);
    }
  (std::make_integer_sequence<int, 8>());
}

/// The formats of super-blocks, in planes or not.
template <class Q>
concept in_super_blocks = super_format<Q> || super_plane_format<Q>;

/// The super-block of row `row` that holds element `i`.
template <super_format Q>
const typename Q::stored& super_block(const stored_view<>& w, index row, index i) {
  return reinterpret_cast<const typename Q::stored*>(blocks_of_row<Q>(w, row).data)[i / Q::block];
}
template <super_plane_format Q>
split_super_block super_block(const stored_view<>& w, index row, index i) {
  return blocks_of_row<Q>(w, row)[i / format_traits<Q>::block];
}

/// The same of rows in super-blocks.
template <in_super_blocks Q>
void pack_rows(weight_panel<std::int16_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  constexpr index groups = block_size / Q::group;  // of a piece
  for_each_piece(first, count, [&]<int Piece>(index b) {
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      row_blocks quants;
      for (std::size_t r = 0; r < 8; ++r) {
        const auto& block = super_block<Q>(rows.w, rows.row(part + r), first + b * block_size);
        alignas(64) std::int16_t integers[block_size];
        format_kernels<Q>::template quants<Piece>(block).store(integers);
        for (std::size_t half = 0; half < 2; ++half) quants[half][r] = i16x16::load(integers + 16 * half);
        for (index i = 0; i < groups; ++i) {
          const auto [scale, minimum] = Q::factors_of(block, Piece * groups + i);
          w.scales[b * groups + i][part + r] = scale;
          if constexpr (Q::has_minimum) w.minima[b * groups + i][part + r] = -minimum;
        }
      }
      set_quants(w, b, part, quants);
    }
  });
}

/// Panels that take one block of columns.
inline constexpr index panels_in_block = block_size / panel_rows;
static_assert(block_size % panel_rows == 0);

/// One block of columns, pairs being neighbours in `selection`. The scales of these blocks differ along the
/// sum and belong to the tokens; `ratios`[k] receives them in units of 2^-15 of the panels' scales, one for
/// 32 places.
template <rounded_format Q>
void pack_columns(weight_panel<std::int16_t>* panels, std::int16_t* ratios, const stored_view<>& w,
                  const neurons& selection, index column, index first, index count) {
  const index block = column / block_size;
  const auto row = [&](index k) {
    return blocks_of_row<Q>(w, row_of(selection, first + std::min(k, count - 1)));
  };
  const i16x16 offset = i16x16::broadcast(static_cast<std::int16_t>(Q::quant_offset));
  constexpr std::size_t rows = panel_rows;
  for (index k = 0; k < count; k += 2) {
    const auto pairs = format_kernels<Q>::quant_pairs(row(k).block(block), row(k + 1).block(block));
    for (std::size_t v = 0; v < pairs.size(); ++v)
      (pairs[v] - offset).store(panels[8 * v / rows].quants[k / 2][8 * v % rows]);
  }
  for (index b = 0; b * block_size < count; ++b) {
    float scales[block_size], step;
    for (index i = 0; i < block_size; ++i) scales[i] = to_float(*row(b * block_size + i).scale(block));
    round_block(scales, ratios + b * block_size, step);
    for (index h = 0; h < panels_in_block; ++h) std::fill_n(panels[h].scales[b], panel_rows, 0x1p15f * step);
  }
}

/// to[t][k] = x.values[t][k] * ratios[k] / 2^15 in all blocks that begin before `depth`: tokens with the
/// scales of the weights that they will meet.
inline void scale_tokens(token_panel<std::int16_t> x, const std::int16_t* ratios, index depth,
                         std::int16_t* to) {
  const index padded = (depth + block_size - 1) / block_size * block_size;
  static_assert(block_size % (2 * wide_lanes) == 0);
  for (index k = 0; k < padded; k += 2 * wide_lanes) {
    const wide_i16 ratio = wide_i16::load(ratios + k);
    for (index t = 0; t < panel_tokens; ++t) {
      const index at = t * panel_depth<std::int16_t> + k;
      multiply_high(wide_i16::load(x.values + at), ratio).store(to + at);
    }
  }
}

/// The scales and minima that group `g` of neurons, of which `of_group` is one, has in one block of columns.
template <neuron_format Q, class X>
void set_factors(weight_panel<X>* panels, const quantised_row<Q>& of_group, index column, index g) {
  for (index h = 0; h < panels_in_block; ++h) {
    std::copy_n(of_group.scales + column + h * panel_rows, panel_rows, panels[h].scales[g]);
    if constexpr (Q::has_minimum)
      std::copy_n(of_group.minima + column + h * panel_rows, panel_rows, panels[h].minima[g]);
  }
}

/// One block of columns of neurons first..first + count, which sums run along as blocks do; `first` in whole
/// groups.
template <neuron_format Q>
void pack_neurons(weight_panel<std::int16_t>* panels, const stored_view<>& w, index column, index first,
                  index count) {
  assert(first % Q::group == 0);
  using quants = format_kernels<std::conditional_t<Q::bits == 8, q8_0, q4_0>>;  // which store them alike
  const auto row = [&](index k) { return blocks_of_row<Q>(w, first + std::min(k, count - 1)); };
  const auto block = [&](index k) { return row(k).quants + column * Q::bits / 8; };
  const i16x16 offset = i16x16::broadcast(static_cast<std::int16_t>(Q::quant_offset));
  constexpr std::size_t rows = panel_rows;
  for (index k = 0; k < count; k += 2) {
    const auto pairs = quants::quant_pairs(block(k), block(k + 1));
    for (std::size_t v = 0; v < pairs.size(); ++v)
      (pairs[v] - offset).store(panels[8 * v / rows].quants[k / 2][8 * v % rows]);
  }
  for (index g = 0; g * Q::group < count; ++g) set_factors<Q>(panels, row(g * Q::group), column, g);
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Stored weights into the panels of panel_kernels.hpp. The sums of a panel run along the rows of a matrix
// (y = x W^T) or across them (y = x W), and each has its own way to pack.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/simd/rows.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/moved.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// The rows at the places from `place` on; where the restricted matrix ends at `last`, its last row again.
struct panel_rows_of {
  const stored_view<>& w;
  const neurons& selection;
  index place, last;

  static constexpr std::size_t size = static_cast<std::size_t>(panel_rows);
  index row(std::size_t r) const {
    return row_of(selection, std::min(place + static_cast<index>(r), last - 1));
  }
};

/// The weights of one row from `column` on, `count` of them and eight at most; zeros behind them.
template <class T>
f32x8 load_weights(const stored_view<>& w, index row, index column, index count) {
  if constexpr (number_plane_format<T>) {
    const auto stored = blocks_of_row<T>(w, row);
    if (count >= 8) return format_kernels<T>::template load<f32x8>(stored.block(column));
    float some[8] = {};
    dequantise(stored, column, count, some);
    return f32x8::load(some);
  } else {
    return load_up_to<f32x8>(typed_row<T>(w, row) + column, count);
  }
}

/// Elements first..first + count of rows: w.weights[k][r] = row r's element first + k.
template <class T>
void pack_rows(weight_panel<float>& w, const panel_rows_of& rows, index first, index count) {
  for (index k = 0; k < count; k += 8)
    for (std::size_t half = 0; half < panel_rows_of::size; half += 8) {
      std::array<f32x8, 8> block;
      for (std::size_t r = 0; r < 8; ++r)
        block[r] = load_weights<T>(rows.w, rows.row(half + r), first + k, count - k);
      transpose(block);
      for (std::size_t i = 0; i < 8; ++i) block[i].store(w.weights[k + static_cast<index>(i)] + half);
    }
}

/// The same of rows in blocks whose weights are widened; `first` and `count` in whole blocks.
template <moved_format Q>
void pack_rows(weight_panel<float>& w, const panel_rows_of& rows, index first, index count) {
  float widened[8][block_size];
  for (index k = 0; k < count; k += block_size)
    for (std::size_t half = 0; half < panel_rows_of::size; half += 8) {
      for (std::size_t r = 0; r < 8; ++r)
        widen_row<Q>(rows.w, rows.row(half + r), first + k, block_size, widened[r]);
      for (index part = 0; part < block_size; part += 8) {
        std::array<f32x8, 8> block;
        for (std::size_t r = 0; r < 8; ++r) block[r] = f32x8::load(widened[r] + part);
        transpose(block);
        for (std::size_t i = 0; i < 8; ++i)
          block[i].store(w.weights[k + part + static_cast<index>(i)] + half);
      }
    }
}

/// The same of rows in blocks, as pairs; `first` and `count` in whole blocks.
template <block_format Q>
void pack_rows(weight_panel<std::int16_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  const i16x16 offset = i16x16::broadcast(static_cast<std::int16_t>(Q::quant_offset));
  for (index b = 0; b < count / block_size; ++b) {
    for (std::size_t half = 0; half < panel_rows_of::size; half += 8) {
      std::array<std::array<i16x16, 8>, 2> parts;  // elements 0..15 and 16..31 of eight rows
      for (std::size_t r = 0; r < 8; ++r) {
        const auto row = blocks_of_row<Q>(rows.w, rows.row(half + r));
        const auto quants = format_kernels<Q>::quants(row.block(first / block_size + b));
        for (std::size_t part = 0; part < 2; ++part) parts[part][r] = quants[part] - offset;
        w.scales[b][half + r] = to_float(*row.scale(first / block_size + b));
      }
      index pair = b * (block_size / 2);
      for (auto& part : parts) {
        transpose(part);
        for (const i16x16& pairs : part) pairs.store(w.quants[pair++][half]);
      }
    }
  }
}

/// Columns column..column + columns (a group at most) of the rows at places first..first + count:
/// panel h's weights[k][r] = element column + panel_rows h + r of the row at place first + k.
template <class T>
void pack_columns(weight_panel<float>* panels, const stored_view<>& w, const neurons& selection, index column,
                  index columns, index first, index count) {
  for (index k = 0; k < count; ++k) {
    const index row = row_of(selection, first + k);
    for (index j = 0; j < columns; j += 8)
      load_weights<T>(w, row, column + j, columns - j)
          .store(panels[j / panel_rows].weights[k] + j % panel_rows);
  }
}

/// The same of blocks whose weights are widened; `column` and `columns` in whole blocks.
template <moved_format Q>
void pack_columns(weight_panel<float>* panels, const stored_view<>& w, const neurons& selection, index column,
                  index columns, index first, index count) {
  float widened[group_rows];
  for (index k = 0; k < count; ++k) {
    widen_row<Q>(w, row_of(selection, first + k), column, columns, widened);
    for (index j = 0; j < columns; j += 8)
      f32x8::load(widened + j).store(panels[j / panel_rows].weights[k] + j % panel_rows);
  }
}

/// Panels that take one block of columns.
inline constexpr index panels_in_block = block_size / panel_rows;
static_assert(block_size % panel_rows == 0);

/// One block of columns, pairs being neighbours in `selection`. The scales of these blocks differ along the
/// sum and belong to the tokens; `ratios`[k] receives them in units of 2^-15 of the panels' scales, one for
/// 32 places.
template <block_format Q>
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

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

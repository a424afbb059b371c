// SPDX-License-Identifier: Apache-2.0
// Stored weights into the panels of panel_kernels.hpp that hold numbers. The sums of a panel run along the
// rows of a matrix (y = x W^T) or across them (y = x W), and each has its own way to pack.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

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

/// The same of neurons in blocks, along which each weight has a scale of its own; `first` and `count` in
/// whole blocks.
template <neuron_format Q>
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

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The tokens of a product with many of them, in the order in which panel_kernels.hpp reads them: panel_depth
// elements of all tokens, then the next ones. Made once for a product, read again for each panel of weights.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>

#include "corematching/backend/cpu/growing_buffer.hpp"
#include "corematching/backend/cpu/panel_kernels.hpp"
#include "corematching/backend/cpu/rounded_tokens.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Tokens as they are (float), or rounded to 16 bits in blocks of 32 elements.
template <class X>
class token_tiles {
 public:
  static constexpr index depth = panel_depth<X>;

  /// Makes room for `rows` tokens of `cols` elements.
  void reserve(index rows, index cols) {
    rows_ = rows;
    cols_ = cols;
    values_.at_least(chunks() * padded_rows() * depth);
    if constexpr (rounds) scales_.at_least(chunks() * padded_rows() * blocks_in_panel);
  }

  index cols() const { return cols_; }
  index chunks() const { return (cols_ + depth - 1) / depth; }
  index tiles() const { return (rows_ + tile_tokens - 1) / tile_tokens; }
  /// Tokens and, behind them, zeros that fill the last tile.
  index padded_rows() const { return tiles() * tile_tokens; }

  /// Copies or rounds the tokens of tiles first..last of `x`; threads may each set some tiles.
  void assign(matrix_view<const float> x, index first, index last) {
    assert(x.rows == rows_ && x.cols == cols_);
    for (index row = first * tile_tokens; row < last * tile_tokens; ++row)
      for (index chunk = 0; chunk < chunks(); ++chunk) {
        const index column = chunk * depth, count = std::min(depth, cols_ - column);
        if (row < rows_)
          set(row, chunk, x.row(row).data + column, count);
        else
          clear(row, chunk);
      }
  }

  token_tile<X> tile(index chunk, index tile) {
    return {values(tile * tile_tokens, chunk), rounds ? scales(tile * tile_tokens, chunk) : nullptr};
  }

 private:
  static constexpr bool rounds = !std::is_same_v<X, float>;

  X* values(index row, index chunk) { return values_.at_least(0) + (chunk * padded_rows() + row) * depth; }
  float* scales(index row, index chunk) {
    return scales_.at_least(0) + (chunk * padded_rows() + row) * blocks_in_panel;
  }

  void set(index row, index chunk, const float* from, index count) {
    X* to = values(row, chunk);
    if constexpr (rounds) {
      float* scale = scales(row, chunk);
      index i = 0;
      for (; i + block_size <= count; i += block_size) round_block(from + i, to + i, *scale++);
      if (i == count) return;
      float padded[block_size] = {};
      std::copy(from + i, from + count, padded);
      round_block(padded, to + i, *scale);
    } else {
      std::copy_n(from, count, to);
    }
  }

  void clear(index row, index chunk) {
    std::fill_n(values(row, chunk), depth, X{});
    if constexpr (rounds) std::fill_n(scales(row, chunk), blocks_in_panel, 0.0f);
  }

  growing_buffer<X> values_;
  growing_buffer<float> scales_;
  index rows_ = 0;
  index cols_ = 0;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

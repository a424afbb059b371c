// SPDX-License-Identifier: Apache-2.0
// The tokens of a product in AMX tiles, in the order in which the kernel reads them. Made once for a product,
// read again for each group of weights.
#pragma once

#include "corematching/backend/cpu/amx/tile_strips.hpp"

#if COREMATCHING_HAS_AMX

#include <algorithm>
#include <array>
#include <cstddef>

#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Elements of the sum that strips of weights stored as `T` hold, and the strips of the tokens they meet.
template <class T>
inline constexpr index strip_depth = 1024 / std::max(weight_parts<T>, token_parts<T>);

inline index strips_of(index rows) {
  return (rows + strip_rows - 1) / strip_rows;
}

/// The tokens of a product as strips: strip_depth elements of all tokens, then the next ones.
template <class T>
class token_strips {
 public:
  static constexpr int parts = token_parts<T>;
  static constexpr index depth = strip_depth<T>;

  void reserve(index rows, index cols) {
    rows_ = rows;
    cols_ = cols;
    numbers_.at_least(chunks() * strips() * strip_elements);
  }

  index cols() const { return cols_; }
  index chunks() const { return (cols_ + depth - 1) / depth; }
  index strips() const { return strips_of(rows_); }
  index tokens_of(index strip) const { return std::min(strip_rows, rows_ - strip * strip_rows); }

  const bf16* strip(index chunk, index strip) { return numbers(chunk, strip); }

  /// Fills strips first..last with tokens of `x`, as rows or as columns of what kernels multiply; zeros
  /// behind the last one. Different strips may be filled by different threads.
  template <bool AsColumns>
  void assign(matrix_view<const float> x, index first, index last) {
    for (index chunk = 0; chunk < chunks(); ++chunk)
      for (index s = first; s < last; ++s) {
        bf16* step = numbers(chunk, s);
        const index end = std::min(cols_, (chunk + 1) * depth);
        for (index column = chunk * depth; column < end; column += tile_depth, step += parts * step_elements)
          assign_step<AsColumns>(step, x, s * strip_rows, column);
      }
  }

 private:
  static constexpr index strip_elements = depth / tile_depth * parts * step_elements;

  bf16* numbers(index chunk, index strip) {
    return numbers_.at_least(0) + (chunk * strips() + strip) * strip_elements;
  }

  split_numbers<parts> read(matrix_view<const float> x, index row, index column) const {
    if (row >= rows_) return {};
    return split_row<parts>(x.row(row).data, column, cols_);
  }

  template <bool AsColumns>
  void assign_step(bf16* step, matrix_view<const float> x, index first, index column) const {
    if constexpr (AsColumns) {
      for (index tile = 0; tile < 2; ++tile) {
        std::array<std::array<lanes512, 16>, parts> rows;
        for (std::size_t row = 0; row < 16; ++row) {
          const auto numbers = read(x, first + tile * tile_rows + static_cast<index>(row), column);
          for (std::size_t part = 0; part < parts; ++part) rows[part][row] = numbers[part];
        }
        store_transposed<parts>(step, tile, rows);
      }
    } else {
      for (index row = 0; row < strip_rows; ++row) store_row<parts>(step, row, read(x, first + row, column));
    }
  }

  growing_buffer<bf16> numbers_;
  index rows_ = 0;
  index cols_ = 0;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill) in AMX tiles, for all types but f32, which is
// multiplied in true binary32 (panel_products.hpp). A thread takes columns of the result, up to 256 at a
// time: it turns the weights that make them into strips, some hundred elements of the sum at a time, which
// stay in the second-level cache while strips of tokens go past them.
#pragma once

#include "corematching/backend/cpu/tile_strips.hpp"

#if COREMATCHING_HAS_AMX

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/growing_buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/thread_pool.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Strips of weights that take part in one pass over the tokens.
inline constexpr index group_strips = 8;
inline constexpr index most_group_rows = group_strips * strip_rows;

/// Elements of the sum that strips of weights stored as `T` hold, and the strips of the tokens they meet.
template <class T>
inline constexpr index strip_depth = 512 / std::max(weight_parts<T>, token_parts<T>);

/// Tokens that are multiplied at once: with more of them the sums would leave the second-level cache.
inline constexpr index most_strip_tokens = 1024;

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
  index strips() const { return (rows_ + strip_rows - 1) / strip_rows; }
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
        for (index column = chunk * depth; column < end; column += tile_depth, step += parts * step_elements) {
          const auto read = [&](index row) {
            if (s * strip_rows + row >= rows_) return split_numbers<parts>{};
            return split_row<parts>(x.row(s * strip_rows + row).data, column, cols_);
          };
          if constexpr (AsColumns)
            pack_transposed_step<parts>(step, read);
          else
            pack_row_step<parts>(step, read);
        }
      }
  }

 private:
  static constexpr index strip_elements = depth / tile_depth * parts * step_elements;

  bf16* numbers(index chunk, index strip) {
    return numbers_.at_least(0) + (chunk * strips() + strip) * strip_elements;
  }

  growing_buffer<bf16> numbers_;
  index rows_ = 0;
  index cols_ = 0;
};

/// What one thread packs and sums into.
struct tile_workspace {
  growing_buffer<bf16> weights;  // [strips, steps] of a group
  growing_buffer<> sums;         // [token strips, weight strips], strip_sums each
  growing_buffer<> rows;         // [strip_rows, columns of the group]
};

/// Columns first..last of a product of the tokens `x`, for one thread.
template <class T>
struct tile_task {
  matrix_view<float> y;
  token_strips<T>& x;
  tile_workspace& work;
  index first, last;
};

template <class T>
bf16* weight_strip(tile_workspace& work, index strip) {
  constexpr index elements = strip_depth<T> / tile_depth * weight_parts<T> * step_elements;
  return work.weights.at_least(group_strips * elements) + strip * elements;
}

/// The sums of `strips` strips of weights with all tokens. pack(first, count) fills the strips with that part
/// of the sum. In the kernel, weights are the rows where tokens are columns, and the other way round.
template <bool TokensAsColumns, class T, class Pack>
float* sum_strips(const tile_task<T>& task, index strips, Pack&& pack) {
  token_strips<T>& x = task.x;
  float* sums = task.work.sums.at_least(x.strips() * strips * strip_sums);
  for (index chunk = 0; chunk < x.chunks(); ++chunk) {
    const index first = chunk * x.depth, count = std::min(x.depth, x.cols() - first);
    const index steps = (count + tile_depth - 1) / tile_depth;
    pack(first, count);
    for (index s = 0; s < x.strips(); ++s)
      for (index h = 0; h < strips; ++h) {
        const bf16 *tokens = x.strip(chunk, s), *weights = weight_strip<T>(task.work, h);
        float* to = sums + (s * strips + h) * strip_sums;
        if constexpr (TokensAsColumns)
          add_tile_products(strip_pair<weight_parts<T>, token_parts<T>>{weights, tokens, steps}, to,
                            chunk == 0);
        else
          add_tile_products(strip_pair<token_parts<T>, weight_parts<T>>{tokens, weights, steps}, to,
                            chunk == 0);
      }
  }
  return sums;
}

/// The sums of one strip of tokens, `strips` strips of weights wide, row by row of tokens.
template <bool TokensAsColumns>
void unpack_sums(const float* sums, index strips, float* rows) {
  constexpr index tile = tile_rows * tile_rows;
  for (index h = 0; h < strips; ++h)
    for (index i = 0; i < 4; ++i) {
      const float* from = sums + h * strip_sums + i * tile;
      const index row_tile = TokensAsColumns ? i % 2 : i / 2, column_tile = TokensAsColumns ? i / 2 : i % 2;
      float* to = rows + row_tile * tile_rows * strips * strip_rows + h * strip_rows + column_tile * tile_rows;
      std::array<lanes512, 16> numbers;
      for (lanes512& row : numbers) row = lanes512::load(std::exchange(from, from + tile_rows));
      if constexpr (TokensAsColumns) transpose(numbers);
      for (const lanes512& row : numbers) row.store(std::exchange(to, to + strips * strip_rows));
    }
}

/// Calls finish(token, sums of its group of columns) for every token.
template <bool TokensAsColumns, class T, class Finish>
void finish_rows(const tile_task<T>& task, const float* sums, index strips, Finish&& finish) {
  const index columns = strips * strip_rows;
  float* rows = task.work.rows.at_least(strip_rows * columns);
  for (index s = 0; s < task.x.strips(); ++s) {
    unpack_sums<TokensAsColumns>(sums + s * strips * strip_sums, strips, rows);
    for (index i = 0; i < task.x.tokens_of(s); ++i) finish(s * strip_rows + i, rows + i * columns);
  }
}

/// Elements first..first + count of the 32 rows at places from `place` on, as strip `strip`; where the
/// restricted matrix ends at `last`, its last row again.
template <class T>
void pack_weight_rows(tile_workspace& work, index strip, const weight_view<>& w, const neurons& selection,
                      index place, index last, index first, index count) {
  bf16* step = weight_strip<T>(work, strip);
  for (index column = first; column < first + count;
       column += tile_depth, step += weight_parts<T> * step_elements)
    pack_row_step<weight_parts<T>>(step, [&](index row) {
      const index i = row_of(selection, std::min(place + row, last - 1));
      return split_weights<T>(w.data + i * w.row_bytes, column, w.cols);
    });
}

/// Columns column..column + 32 of the rows at places first..first + count, as strip `strip`; zeros behind them.
template <class T>
void pack_weight_columns(tile_workspace& work, index strip, const weight_view<>& w, const neurons& selection,
                         index column, index first, index count) {
  bf16* step = weight_strip<T>(work, strip);
  for (index k = 0; k < count; k += tile_depth, step += weight_parts<T> * step_elements)
    pack_column_step<weight_parts<T>>(step, [&](index row) {
      if (k + row >= count) return split_numbers<weight_parts<T>>{};
      return split_weights<T>(w.data + row_of(selection, first + k + row) * w.row_bytes, column, w.cols);
    });
}

inline index strips_of(index rows) {
  return (rows + strip_rows - 1) / strip_rows;
}

/// y[:, first..last] = x w[first..last]^T + bias
template <class T>
void multiply_strips(const tile_task<T>& task, const weight_view<>& w, vector_view<const float> bias) {
  for (index i = task.first; i < task.last; i += most_group_rows) {
    const index rows = std::min(most_group_rows, task.last - i), strips = strips_of(rows);
    const float* sums = sum_strips<true>(task, strips, [&](index first, index count) {
      for (index h = 0; h < strips; ++h)
        pack_weight_rows<T>(task.work, h, w, {}, i + h * strip_rows, task.last, first, count);
    });
    finish_rows<true>(task, sums, strips, [&](index t, const float* row) {
      eigen_row out(task.y.row(t).data + i, rows);
      out = eigen_const_row(row, rows);
      if (!bias.empty()) out += eigen_const_row(bias.data + i, rows);
    });
  }
}

/// y[:, first..last] = act(x gate^T) * (x up^T) for these places; half of the strips for each.
template <class T>
void gated_strips(const tile_task<T>& task, const weight_view<>& gate, const weight_view<>& up,
                  activation act, const neurons& selection) {
  constexpr index most = most_group_rows / 2;
  for (index i = task.first; i < task.last; i += most) {
    const index rows = std::min(most, task.last - i), half = strips_of(rows);
    const float* sums = sum_strips<true>(task, 2 * half, [&](index first, index count) {
      for (index h = 0; h < half; ++h) {
        const index place = i + h * strip_rows;
        pack_weight_rows<T>(task.work, h, gate, selection, place, task.last, first, count);
        pack_weight_rows<T>(task.work, half + h, up, selection, place, task.last, first, count);
      }
    });
    finish_rows<true>(task, sums, 2 * half, [&](index t, const float* row) {
      const vector_view<float> out{task.y.row(t).data + i, rows};
      std::copy_n(row, rows, out.data);
      activate_row(act, out);
      eigen_row(out.data, rows) *= eigen_const_row(row + half * strip_rows, rows);
    });
  }
}

/// y[:, first..last] = x w[neurons, first..last]
template <class T>
void combine_strips(const tile_task<T>& task, const weight_view<>& w, const neurons& selection) {
  for (index i = task.first; i < task.last; i += most_group_rows) {
    const index columns = std::min(most_group_rows, task.last - i), strips = strips_of(columns);
    const float* sums = sum_strips<false>(task, strips, [&](index first, index count) {
      for (index h = 0; h < strips; ++h)
        pack_weight_columns<T>(task.work, h, w, selection, i + h * strip_rows, first, count);
    });
    finish_rows<false>(task, sums, strips, [&](index t, const float* row) {
      std::copy_n(row, columns, task.y.row(t).data + i);
    });
  }
}

/// The products of a backend with many tokens for whose type tiles serve, and the memory that they share.
class tile_products {
 public:
  explicit tile_products(int threads) : work_(static_cast<std::size_t>(threads)) {}

  /// Whether weights of `type` are multiplied here.
  static bool take(dtype type) { return type != dtype::f32 && tiles_allowed(); }

  void matmul(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
              const weight_view<>& w, vector_view<const float> bias) {
    for_columns<true>(pool, grain, y, x, w.type,
                      [&]<class T>(const tile_task<T>& task) { multiply_strips<T>(task, w, bias); });
  }

  void gated_up(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                const weight_view<>& gate, const weight_view<>& up, activation act,
                const neurons& selection) {
    for_columns<true>(pool, grain, y, x, gate.type, [&]<class T>(const tile_task<T>& task) {
      gated_strips<T>(task, gate, up, act, selection);
    });
  }

  void weighted_rows(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                     const weight_view<>& w, const neurons& selection) {
    for_columns<false>(pool, grain, y, x, w.type,
                       [&]<class T>(const tile_task<T>& task) { combine_strips<T>(task, w, selection); });
  }

 private:
  /// Calls body(task) for every thread's share of the columns, for equal parts of the tokens where there are
  /// too many.
  template <bool TokensAsColumns, class Body>
  void for_columns(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                   dtype type, Body&& body) {
    const index parts = (x.rows + most_strip_tokens - 1) / most_strip_tokens;
    const index step = (strips_of(x.rows) + parts - 1) / parts * strip_rows;
    visit_dtype(type, [&]<class T>(const T*) {
      if constexpr (!std::is_same_v<T, float>) {
        token_strips<T>& tokens = std::get<token_strips<T>>(tokens_);
        for (index row = 0; row < x.rows; row += step) {
          const auto some = x.middle_rows(row, std::min(step, x.rows - row));
          tokens.reserve(some.rows, some.cols);
          pool.for_ranges(tokens.strips(), 1, [&](int, index first, index last) {
            tokens.template assign<TokensAsColumns>(some, first, last);
          });
          pool.for_ranges(y.cols, grain, [&](int thread, index first, index last) {
            const tile_session tiles;
            body(tile_task<T>{y.middle_rows(row, some.rows), tokens, work_[static_cast<std::size_t>(thread)],
                              first, last});
          });
        }
      }
    });
  }

  std::tuple<token_strips<f16>, token_strips<bf16>, token_strips<q8_0>, token_strips<q4_0>> tokens_;
  std::vector<tile_workspace> work_;  // one per thread
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

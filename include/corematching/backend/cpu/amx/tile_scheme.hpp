// SPDX-License-Identifier: Apache-2.0
// Products with many tokens in AMX tiles, for all formats but f32, which is multiplied in true binary32
// (panel_scheme.hpp): up to eight strips of weights stay in the second-level cache while strips of tokens go
// past them.
#pragma once

#include "corematching/backend/cpu/amx/token_strips.hpp"

#if COREMATCHING_HAS_AMX

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/prefill/many_tokens.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Strips of weights that take part in one pass over the tokens.
inline constexpr index group_strips = 8;

/// What one thread packs and sums into.
struct tile_workspace {
  growing_buffer<bf16> weights;  // [strips, steps] of a group
  growing_buffer<> sums;         // [token strips, weight strips], strip_sums each
  growing_buffer<> rows;         // [strip_rows, columns of the group]
};

template <class T>
bf16* weight_strip(tile_workspace& work, index strip) {
  // Strips are written side by side: a power of two apart, they would meet in a few sets of the caches.
  constexpr index gap = step_elements + tile_depth;
  constexpr index elements = strip_depth<T> / tile_depth * weight_parts<T> * step_elements + gap;
  return work.weights.at_least(group_strips * elements) + strip * elements;
}

/// The sums of `strips` strips of weights with all tokens. pack(first, count) fills the strips with that part
/// of the sum. In the kernel, weights are the rows where tokens are columns, and the other way round.
template <bool TokensAsColumns, class T, class Task, class Pack>
const float* sum_strips(const Task& task, index strips, Pack&& pack) {
  token_strips<T>& x = task.x;
  const index size = x.strips() * strips * strip_sums;
  float* sums = task.work.sums.at_least(size);
  if (x.cols() == 0) std::fill_n(sums, size, 0.0f);  // a restriction to no row at all
  for (index chunk = 0; chunk < x.chunks(); ++chunk) {
    const index first = chunk * x.depth, count = std::min(x.depth, x.cols() - first);
    const index steps = (count + tile_depth - 1) / tile_depth;
    pack(first, count);
    const index ahead = token_parts<T> * step_elements / strips;  // of each step, of the next tokens
    for (index s = 0; s < x.strips(); ++s)
      for (index h = 0; h < strips; ++h) {
        const bf16 *tokens = x.strip(chunk, s), *weights = weight_strip<T>(task.work, h);
        const bf16* next = x.strip(chunk, s + 1) + h * steps * ahead;
        float* to = sums + (s * strips + h) * strip_sums;
        if constexpr (TokensAsColumns)
          add_tile_products(strip_pair<weight_parts<T>, token_parts<T>>{weights, tokens, steps, next, ahead},
                            to, chunk == 0);
        else
          add_tile_products(strip_pair<token_parts<T>, weight_parts<T>>{tokens, weights, steps, next, ahead},
                            to, chunk == 0);
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
      float* to =
          rows + row_tile * tile_rows * strips * strip_rows + h * strip_rows + column_tile * tile_rows;
      std::array<lanes512, 16> numbers;
      for (lanes512& row : numbers) row = lanes512::load(std::exchange(from, from + tile_rows));
      if constexpr (TokensAsColumns) transpose(numbers);
      for (const lanes512& row : numbers) row.store(std::exchange(to, to + strips * strip_rows));
    }
}

/// Calls finish(token, sums of its group of columns) for every token.
template <bool TokensAsColumns, class Task, class Finish>
void finish_rows(const Task& task, const float* sums, index strips, Finish&& finish) {
  const index columns = strips * strip_rows;
  float* rows = task.work.rows.at_least(strip_rows * columns);
  for (index s = 0; s < task.x.strips(); ++s) {
    unpack_sums<TokensAsColumns>(sums + s * strips * strip_sums, strips, rows);
    for (index i = 0; i < task.x.tokens_of(s); ++i) finish(s * strip_rows + i, rows + i * columns);
  }
}

/// Asks for the weights column..column + columns of row `i`, which the processor cannot foresee: it is a part
/// of a row, and the next row may be any.
template <class T>
void prefetch_weights(const stored_view<>& w, index i, index column, index columns) {
  const auto at = [](index elements) {
    return static_cast<index>(bytes_of(dtype_of<T>, static_cast<std::size_t>(elements)));
  };
  if constexpr (plane_format<T>) {
    constexpr index block = format_traits<T>::block;
    const auto [upper, lower] = blocks_of_row<T>(w, i).block(column / block);
    prefetch_bytes(upper, (columns + block - 1) / block * T::half_bytes);
    prefetch_bytes(lower, (columns + block - 1) / block * T::half_bytes);
  } else if constexpr (neuron_format<T>) {
    prefetch_bytes(blocks_of_row<T>(w, i).quants + column * T::bits / 8, columns * T::bits / 8);
  } else if constexpr (super_format<T>) {
    constexpr index bytes = sizeof(typename T::stored);
    prefetch_bytes(w.data + i * w.row_bytes + column / T::block * bytes,
                   (columns + T::block - 1) / T::block * bytes);
  } else {
    prefetch_bytes(w.data + i * w.row_bytes + at(column), at(columns));
  }
}

/// split_weights of row `i` of `w`.
template <class T, class Sink>
[[gnu::always_inline]] inline void split_row_of(const stored_view<>& w, index i, index first, index count,
                                                Sink&& sink) {
  if constexpr (block_format<T>)
    split_weights<T>(blocks_of_row<T>(w, i), first, count, sink);
  else
    split_weights<T>(w.data + i * w.row_bytes, first, count, w.cols, sink);
}

/// How many rows ahead of the one that is packed that is done.
inline constexpr index rows_ahead = 8;

/// Elements first..first + count of the 32 rows at places from `place` on, as strip `strip`; where the
/// restricted matrix ends at `last`, its last row again.
template <class T>
void pack_weight_rows(tile_workspace& work, index strip, const stored_view<>& w, const neurons& selection,
                      index place, index last, index first, index count) {
  constexpr int parts = weight_parts<T>;
  bf16* const steps = weight_strip<T>(work, strip);
  const auto row_at = [&](index i) { return row_of(selection, std::min(i, last - 1)); };
  for (index row = 0; row < strip_rows; ++row) {
    prefetch_weights<T>(w, row_at(place + row + rows_ahead), first, count);
    split_row_of<T>(w, row_at(place + row), first, count,
                    [&](index step, const split_numbers<parts>& numbers) {
                      store_row<parts>(steps + step * parts * step_elements, row, numbers);
                    });
  }
}

/// Columns column..column + columns of the rows at places first..first + count, as strips of 32 columns each;
/// zeros behind the last row.
template <class T>
void pack_weight_columns(tile_workspace& work, const stored_view<>& w, const neurons& selection, index column,
                         index columns, index first, index count) {
  constexpr int parts = weight_parts<T>;
  const auto row_at = [&](index k) { return row_of(selection, first + std::min(k, count - 1)); };
  for (index k = 0; k < (count + tile_depth - 1) / tile_depth * tile_depth; k += 2) {
    std::array<std::array<split_numbers<parts>, group_strips>, 2> rows{};
    for (index i = 0; i < 2 && k + i < count; ++i) {
      prefetch_weights<T>(w, row_at(k + i + rows_ahead), column, columns);
      split_row_of<T>(w, row_at(k + i), column, columns,
                      [&](index strip, const split_numbers<parts>& numbers) {
                        rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(strip)] = numbers;
                      });
    }
    for (index h = 0; h < strips_of(columns); ++h)
      store_pair<parts>(weight_strip<T>(work, h) + k / tile_depth * parts * step_elements, k % tile_depth / 2,
                        rows[0][static_cast<std::size_t>(h)], rows[1][static_cast<std::size_t>(h)]);
  }
}

template <class T>
using is_tiled = std::bool_constant<!std::is_same_v<T, float>>;
/// The formats whose weights are multiplied in tiles.
using tiled_formats = filtered<weight_formats, is_tiled>;

class tile_scheme {
 public:
  using formats = tiled_formats;
  template <class>
  static constexpr bool sums_along_neurons = false;
  template <class T, sums>
  using tokens = token_strips<T>;
  template <class, sums>
  using workspace = tile_workspace;

  static constexpr index slots = group_strips, slot_rows = strip_rows, unit_tokens = strip_rows;
  /// With more of them the sums would leave the second-level cache.
  static constexpr index most_tokens = 1024;

  explicit tile_scheme(int threads) : work_(static_cast<std::size_t>(threads)) {}

  template <class T, sums>
  token_strips<T>& tokens_of() {
    return std::get<token_strips<T>>(tokens_);
  }
  template <class, sums>
  tile_workspace& workspace_of(int thread) {
    return work_[static_cast<std::size_t>(thread)];
  }

  template <class T, sums Way>
  static void pack_tokens(thread_pool& pool, token_strips<T>& to, matrix_view<const float> x) {
    for_each_task(pool, to.strips(), [&](int, index strip) {
      to.template assign<Way == sums::along_rows>(x, strip, strip + 1);
    });
  }

  /// Whichever thread is free takes the next group: cores differ in speed, and what a group comes to does not
  /// depend on who computes it.
  template <class Body>
  static void for_groups(thread_pool& pool, index grain, index most, index columns, Body&& body) {
    const index share = strips_of(columns / (groups_per_thread * pool.size())) * strip_rows;
    const index step = std::clamp(std::max(share, grain), strip_rows, most);
    for_each_task(pool, (columns + step - 1) / step, [&](int thread, index group) {
      const tile_session tiles;
      body(thread, group * step, std::min((group + 1) * step, columns));
    });
  }

  template <class T>
  static void pack_rows(tile_workspace& work, index strip, const stored_view<>& w, const neurons& selection,
                        index place, index last, index first, index count) {
    pack_weight_rows<T>(work, strip, w, selection, place, last, first, count);
  }

  template <class T, class Task, class Pack, class Finish>
  static void multiply(const Task& task, index strips, Pack&& pack, Finish&& finish) {
    finish_rows<true>(task, sum_strips<true, T>(task, strips, pack), strips, finish);
  }

  template <class T, class Task, class Finish>
  static void combine(const Task& task, index strips, const stored_view<>& w, const neurons& selection,
                      Finish&& finish) {
    const auto pack = [&](index first, index count) {
      pack_weight_columns<T>(task.work, w, selection, task.first, task.columns(), first, count);
    };
    finish_rows<false>(task, sum_strips<false, T>(task, strips, pack), strips, finish);
  }

 private:
  /// thread_pool::for_tasks, but a single task wakes nobody.
  template <class Body>
  static void for_each_task(thread_pool& pool, index tasks, Body&& body) {
    if (tasks == 1) return body(0, index{0});
    pool.for_tasks(tasks, body);
  }

  /// So that threads end at about the same time.
  static constexpr index groups_per_thread = 4;

  tiled_formats::make<std::tuple, token_strips> tokens_;
  std::vector<tile_workspace> work_;  // one per thread
};

using tile_products = many_token_products<tile_scheme>;

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill). A thread takes columns of the result, 32 at a time:
// it packs the weights that make them, a few hundred elements of the sum at a time, and walks over all
// tokens with each such panel. Weights are read once, tokens from the shared cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/backend/cpu/growing_buffer.hpp"
#include "corematching/backend/cpu/packed_panels.hpp"
#include "corematching/backend/cpu/panel_kernels.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/thread_pool.hpp"
#include "corematching/backend/cpu/token_tiles.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Output columns that one thread takes at least: two threads then never write to one cache line, and no
/// block of quantised weights is split between them.
inline constexpr index column_grain = block_size;
static_assert(column_grain % group_rows == 0);

/// Tokens that are multiplied at once: more of them would push the sums out of the second-level cache.
inline constexpr index most_tokens = 256 * tile_tokens;

/// What one thread packs and sums into.
template <class X>
struct panel_workspace {
  weight_panel<X> panels[panels_at_once];
  growing_buffer<> sums;  // [tokens, group_rows]
};

/// Columns first..last of a product of the tokens `x`, for one thread.
template <class X>
struct panel_task {
  matrix_view<float> y;
  token_tiles<X>& x;
  panel_workspace<X>& work;
  index first, last;
};

template <class X>
inline constexpr index half_tile = tile_tokens* panel_depth<X> / panels_at_once;

template <class X>
void ask_for(const X* from, index count) {
  for (index i = 0; i < count; i += 64 / index{sizeof(X)}) prefetch(from + i);
}

/// sums[t][16 h + r] = sum over k of x[t][k] * weight k of row r of panel h; pack(first, count) fills the
/// panels with that part of the sum, adapt(tile, count) may change the tokens of a tile for it.
template <class X, class Pack, class Adapt>
const float* sum_panels(const panel_task<X>& task, index panels, Pack&& pack, Adapt&& adapt) {
  token_tiles<X>& x = task.x;
  float* sums = task.work.sums.at_least(x.padded_rows() * group_rows);
  std::fill_n(sums, x.padded_rows() * group_rows, 0.0f);
  for (index chunk = 0; chunk < x.chunks(); ++chunk) {
    const index first = chunk * x.depth, count = std::min(x.depth, x.cols() - first);
    pack(first, count);
    for (index tile = 0; tile < x.tiles(); ++tile) {
      const token_tile<X> stored = x.tile(chunk, tile), tokens = adapt(stored, count);
      float* to = sums + tile * tile_tokens * group_rows;
      for (index h = 0; h < panels; ++h) {
        // The next tile, half of it before each panel: rows of tokens are too short for the processor to
        // foresee them.
        ask_for(stored.values + (panels_at_once + h) * half_tile<X>, half_tile<X>);
        add_products(task.work.panels[h], tokens, count, to + h * panel_rows);
      }
    }
  }
  return sums;
}

template <class X, class Pack>
const float* sum_panels(const panel_task<X>& task, index panels, Pack&& pack) {
  return sum_panels(task, panels, pack, [](token_tile<X> tile, index) { return tile; });
}

/// Panels that hold `rows` weight rows.
inline index panels_of(index rows) {
  return (rows + panel_rows - 1) / panel_rows;
}

/// y[:, first..last] = x w[first..last]^T + bias, places of the restricted matrix
template <class T>
void multiply_panels(const panel_task<product_type<T>>& task, const weight_view<>& w,
                     const neurons& selection, vector_view<const float> bias) {
  for (index i = task.first; i < task.last; i += group_rows) {
    const index rows = std::min(group_rows, task.last - i), panels = panels_of(rows);
    const float* sums = sum_panels(task, panels, [&](index element, index count) {
      for (index h = 0; h < panels; ++h)
        pack_rows<T>(task.work.panels[h], panel_rows_at(w, selection, i + h * panel_rows, task.last), w.cols,
                     element, count);
    });
    for (index t = 0; t < task.y.rows; ++t) {
      eigen_row out(task.y.row(t).data + i, rows);
      out = eigen_const_row(sums + t * group_rows, rows);
      if (!bias.empty()) out += eigen_const_row(bias.data + i, rows);
    }
  }
}

/// y[:, first..last] = act(x gate^T) * (x up^T) for these places; one panel of each.
template <class T>
void gated_panels(const panel_task<product_type<T>>& task, const weight_view<>& gate, const weight_view<>& up,
                  activation act, const neurons& selection) {
  static_assert(panels_at_once == 2);
  auto& panels = task.work.panels;
  for (index i = task.first; i < task.last; i += panel_rows) {
    const index rows = std::min(panel_rows, task.last - i);
    const float* sums = sum_panels(task, 2, [&](index element, index count) {
      pack_rows<T>(panels[0], panel_rows_at(gate, selection, i, task.last), gate.cols, element, count);
      pack_rows<T>(panels[1], panel_rows_at(up, selection, i, task.last), up.cols, element, count);
    });
    for (index t = 0; t < task.y.rows; ++t) {
      const vector_view<float> out{task.y.row(t).data + i, rows};
      std::copy_n(sums + t * group_rows, rows, out.data);
      activate_row(act, out);
      eigen_row(out.data, rows) *= eigen_const_row(sums + t * group_rows + panel_rows, rows);
    }
  }
}

/// y[:, first..last] = x w[neurons, first..last]
template <class T>
void combine_panels(const panel_task<product_type<T>>& task, const weight_view<>& w,
                    const neurons& selection) {
  for (index i = task.first; i < task.last; i += group_rows) {
    const index columns = std::min(group_rows, task.last - i);
    const float* sums;
    if constexpr (block_format<T>) {
      alignas(64) std::int16_t ratios[panel_depth<std::int16_t>];
      alignas(64) std::int16_t scaled[tile_tokens * panel_depth<std::int16_t>];
      const auto pack = [&](index place, index count) {
        pack_columns<T>(task.work.panels, ratios, w, selection, i, place, count);
      };
      sums = sum_panels(task, panels_at_once, pack, [&](token_tile<std::int16_t> tile, index count) {
        scale_tokens(tile, ratios, count, scaled);
        return token_tile<std::int16_t>{scaled, tile.scales};
      });
    } else {
      sums = sum_panels(task, panels_of(columns), [&](index place, index count) {
        pack_columns<T>(task.work.panels, w, selection, i, columns, place, count);
      });
    }
    for (index t = 0; t < task.y.rows; ++t)
      std::copy_n(sums + t * group_rows, columns, task.y.row(t).data + i);
  }
}

/// The products of a backend with many tokens, and the memory that they share. Threads take multiples of
/// `grain` columns.
class panel_products {
 public:
  explicit panel_products(int threads)
      : exact_(static_cast<std::size_t>(threads)), rounded_(static_cast<std::size_t>(threads)) {}

  void matmul(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
              const weight_view<>& w, vector_view<const float> bias) {
    const neurons all;
    for_columns(pool, grain, y, x, w.type,
                [&]<class T>(const T*, const auto& task) { multiply_panels<T>(task, w, all, bias); });
  }

  void gated_up(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                const weight_view<>& gate, const weight_view<>& up, activation act,
                const neurons& selection) {
    for_columns(pool, grain, y, x, gate.type, [&]<class T>(const T*, const auto& task) {
      gated_panels<T>(task, gate, up, act, selection);
    });
  }

  void weighted_rows(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                     const weight_view<>& w, const neurons& selection) {
    for_columns(pool, grain, y, x, w.type,
                [&]<class T>(const T*, const auto& task) { combine_panels<T>(task, w, selection); });
  }

 private:
  template <class X>
  struct state {
    explicit state(std::size_t threads) : work(threads) {}
    token_tiles<X> tokens;
    std::vector<panel_workspace<X>> work;  // one per thread
  };

  template <class X>
  state<X>& state_of() {
    if constexpr (std::is_same_v<X, float>)
      return exact_;
    else
      return rounded_;
  }

  /// Calls body(null pointer of the stored type, task) for every thread's share of the columns, for equal
  /// parts of the tokens where there are too many.
  template <class Body>
  void for_columns(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                   dtype type, Body&& body) {
    const index tiles = (x.rows + tile_tokens - 1) / tile_tokens;
    const index parts = (x.rows + most_tokens - 1) / most_tokens;
    const index step = (tiles + parts - 1) / parts * tile_tokens;
    visit_dtype(type, [&]<class T>(const T* stored) {
      token_tiles<product_type<T>>& tokens = state_of<product_type<T>>().tokens;
      auto& work = state_of<product_type<T>>().work;
      for (index row = 0; row < x.rows; row += step) {
        const auto some = x.middle_rows(row, std::min(step, x.rows - row));
        tokens.reserve(some.rows, some.cols);
        pool.for_ranges(tokens.tiles(), 1,
                        [&](int, index first, index last) { tokens.assign(some, first, last); });
        pool.for_ranges(y.cols, grain, [&](int thread, index first, index last) {
          body(stored, panel_task<product_type<T>>{y.middle_rows(row, some.rows), tokens,
                                                   work[static_cast<std::size_t>(thread)], first, last});
        });
      }
    });
  }

  state<float> exact_;
  state<std::int16_t> rounded_;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

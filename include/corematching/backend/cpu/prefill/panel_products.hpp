// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill). A thread takes columns of the result, 32 or 64 at a
// time: it packs the weights that make them, a few hundred elements of the sum at a time, and walks over all
// tokens with each such panel. Weights are read once, tokens from the shared cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/prefill/byte_panels.hpp"
#include "corematching/backend/cpu/prefill/packed_panels.hpp"
#include "corematching/backend/cpu/prefill/packed_tokens.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Output columns that one thread takes at least: two threads then never write to one cache line, and no
/// block of quantised weights is split between them.
inline constexpr index column_grain = std::max(block_size, group_rows);
static_assert(column_grain % block_size == 0 && column_grain % group_rows == 0);

/// Tokens that are multiplied at once: more of them would push the sums out of the second-level cache. They
/// take 192 KiB, twice that with AVX-512, whose CPUs have more of it.
inline constexpr index most_tokens = 1536;
static_assert(most_tokens % panel_tokens == 0);

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
  packed_tokens<X>& x;
  panel_workspace<X>& work;
  index first, last;
};

/// How much of the next panel of tokens a panel of weights prefetches.
template <class X>
inline constexpr index part_of_panel = panel_tokens / panels_at_once* panel_depth<X>;

/// sums[t][panel_rows h + r] = sum over k of x[t][k] * weight k of row r of panel h; pack(first, count) fills
/// the panels with that part of the sum, adapt(panel, h, count) may change a panel of tokens for panel h of
/// weights.
template <class X, class Pack, class Adapt>
const float* sum_panels(const panel_task<X>& task, index panels, Pack&& pack, Adapt&& adapt) {
  packed_tokens<X>& x = task.x;
  float* sums = task.work.sums.at_least(x.padded_rows() * group_rows);
  std::fill_n(sums, x.padded_rows() * group_rows, 0.0f);
  for (index chunk = 0; chunk < x.chunks(); ++chunk) {
    const index first = chunk * x.depth, count = std::min(x.depth, x.cols() - first);
    pack(first, count);
    for (index t = 0; t < x.panels(); ++t) {
      token_panel<X> stored = x.panel(chunk, t);
      stored.next = stored.values + panel_tokens * panel_depth<X>;
      float* to = sums + t * panel_tokens * group_rows;
      for (index h = 0; h < panels; ++h) {
        add_products(task.work.panels[h], adapt(stored, h, count), count, to + h * panel_rows);
        stored.next += part_of_panel<X>;
      }
    }
  }
  return sums;
}

template <class X, class Pack>
const float* sum_panels(const panel_task<X>& task, index panels, Pack&& pack) {
  return sum_panels(task, panels, pack, [](token_panel<X> at, index, index) { return at; });
}

/// Panels that hold `rows` weight rows.
inline index panels_of(index rows) {
  return (rows + panel_rows - 1) / panel_rows;
}

/// y[:, first..last] = x w[first..last]^T + bias, places of the restricted matrix
template <class T>
void multiply_panels(const panel_task<product_type<T>>& task, const stored_view<>& w,
                     const neurons& selection, vector_view<const float> bias) {
  for (index i = task.first; i < task.last; i += group_rows) {
    const index rows = std::min(group_rows, task.last - i), panels = panels_of(rows);
    const float* sums = sum_panels(task, panels, [&](index element, index count) {
      for (index h = 0; h < panels; ++h)
        pack_rows<T>(task.work.panels[h], panel_rows_at(w, selection, i + h * panel_rows, task.last), w.cols,
                     element, count);
    });
    for (index t = 0; t < task.y.rows; ++t)
      biased_row({task.y.row(t).data + i, rows}, sums + t * group_rows,
                 bias.empty() ? nullptr : bias.data + i);
  }
}

/// y[:, first..last] = act(x gate^T) * (x up^T) for these places; one panel of each.
template <class T>
void gated_panels(const panel_task<product_type<T>>& task, const stored_view<>& gate, const stored_view<>& up,
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
      const float* const gates = sums + t * group_rows;
      gated_row(act, {task.y.row(t).data + i, rows}, gates, gates + panel_rows);
    }
  }
}

/// y[:, first..last] = x w[neurons, first..last]
template <class T>
void combine_panels(const panel_task<sum_type<T>>& task, const stored_view<>& w, const neurons& selection) {
  for (index i = task.first; i < task.last; i += group_rows) {
    const index columns = std::min(group_rows, task.last - i);
    const float* sums;
    if constexpr (block_format<T>) {
      alignas(64) std::int16_t ratios[group_rows / block_size][panel_depth<std::int16_t>];
      alignas(64) std::int16_t scaled[panel_tokens * panel_depth<std::int16_t>];
      const auto pack = [&](index place, index count) {
        for (index block = 0; block < columns / block_size; ++block)
          pack_columns<T>(task.work.panels + block * panels_in_block, ratios[block], w, selection,
                          i + block * block_size, place, count);
      };
      const auto adapt = [&](token_panel<std::int16_t> at, index h, index count) {
        if (h % panels_in_block == 0) scale_tokens(at, ratios[h / panels_in_block], count, scaled);
        at.values = scaled;
        return at;
      };
      sums = sum_panels(task, panels_of(columns), pack, adapt);
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
  explicit panel_products(int threads) : threads_(static_cast<std::size_t>(threads)) {}

  void matmul(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
              const stored_view<>& w, vector_view<const float> bias) {
    const neurons all;
    visit_weights(w.type, [&]<class T>() {
      for_columns<product_type<T>>(pool, grain, y, x,
                                   [&](const auto& task) { multiply_panels<T>(task, w, all, bias); });
    });
  }

  void gated_up(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                const stored_view<>& gate, const stored_view<>& up, activation act,
                const neurons& selection) {
    visit_weights(gate.type, [&]<class T>() {
      for_columns<product_type<T>>(
          pool, grain, y, x, [&](const auto& task) { gated_panels<T>(task, gate, up, act, selection); });
    });
  }

  void weighted_rows(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                     const stored_view<>& w, const neurons& selection) {
    visit_weights(w.type, [&]<class T>() {
      for_columns<sum_type<T>>(pool, grain, y, x,
                               [&](const auto& task) { combine_panels<T>(task, w, selection); });
    });
  }

 private:
  template <class X>
  struct state {
    packed_tokens<X> tokens;
    std::vector<panel_workspace<X>> work;  // one per thread, once there is a product
  };

  template <class X>
  state<X>& state_of() {
    if constexpr (std::is_same_v<X, float>)
      return exact_;
    else if constexpr (std::is_same_v<X, std::int16_t>)
      return rounded_16_;
    else
      return rounded_8_;
  }

  /// Calls body(task) for every thread's share of the columns, for equal parts of the tokens, taken as `X`,
  /// where there are too many.
  template <class X, class Body>
  void for_columns(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                   Body&& body) {
    const index panels = (x.rows + panel_tokens - 1) / panel_tokens;
    const index parts = (x.rows + most_tokens - 1) / most_tokens;
    const index step = (panels + parts - 1) / parts * panel_tokens;
    packed_tokens<X>& tokens = state_of<X>().tokens;
    auto& work = state_of<X>().work;
    work.resize(threads_);
    for (index row = 0; row < x.rows; row += step) {
      const auto some = x.middle_rows(row, std::min(step, x.rows - row));
      tokens.reserve(some.rows, some.cols);
      pool.for_ranges(tokens.panels(), 1,
                      [&](int, index first, index last) { tokens.assign(some, first, last); });
      pool.for_ranges(y.cols, grain, [&](int thread, index first, index last) {
        body(panel_task<X>{y.middle_rows(row, some.rows), tokens, work[static_cast<std::size_t>(thread)],
                           first, last});
      });
    }
  }

  std::size_t threads_;
  state<float> exact_;
  state<std::int16_t> rounded_16_;
  state<std::int8_t> rounded_8_;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

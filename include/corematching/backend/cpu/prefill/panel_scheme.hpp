// SPDX-License-Identifier: Apache-2.0
// Products with many tokens in panels (panel_kernels.hpp), for all formats: two panels of weights stay in the
// first-level cache while all tokens go past them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/prefill/byte_panels.hpp"
#include "corematching/backend/cpu/prefill/integer_panels.hpp"
#include "corematching/backend/cpu/prefill/many_tokens.hpp"
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

/// What one thread packs and sums into.
template <class X>
struct panel_workspace {
  weight_panel<X> panels[panels_at_once];
  growing_buffer<> sums;  // [tokens, group_rows]
};

class panel_scheme {
 public:
  using formats = weight_formats;
  template <class T>
  static constexpr bool sums_along_neurons = neuron_format<T>;
  /// What tokens are multiplied as.
  template <class T, sums Way>
  using number =
      std::conditional_t<Way == sums::along_rows, product_type<T>,
                         std::conditional_t<Way == sums::across_rows, sum_type<T>, integer_type<T>>>;
  template <class T, sums Way>
  using tokens = packed_tokens<number<T, Way>>;
  template <class T, sums Way>
  using workspace = panel_workspace<number<T, Way>>;

  static constexpr index slots = panels_at_once, slot_rows = panel_rows, unit_tokens = panel_tokens;
  /// More of them would push the sums out of the second-level cache. They take 192 KiB, twice that with
  /// AVX-512, whose CPUs have more of it.
  static constexpr index most_tokens = 1536;
  static_assert(most_tokens % unit_tokens == 0);

  explicit panel_scheme(int threads) : threads_(static_cast<std::size_t>(threads)) {}

  template <class T, sums Way>
  tokens<T, Way>& tokens_of() {
    auto& of_number = state_of<number<T, Way>>();
    of_number.work.resize(threads_);
    return of_number.tokens;
  }
  template <class T, sums Way>
  workspace<T, Way>& workspace_of(int thread) {
    return state_of<number<T, Way>>().work[static_cast<std::size_t>(thread)];
  }

  template <class T, sums Way>
  static void pack_tokens(thread_pool& pool, tokens<T, Way>& to, matrix_view<const float> x) {
    pool.for_ranges(to.panels(), 1, [&](int, index first, index last) { to.assign(x, first, last); });
  }

  /// Threads take multiples of `grain` columns.
  template <class Body>
  static void for_groups(thread_pool& pool, index grain, index most, index columns, Body&& body) {
    pool.for_ranges(columns, grain, [&](int thread, index first, index last) {
      for (index i = first; i < last; i += most) body(thread, i, std::min(i + most, last));
    });
  }

  template <class T>
  static void pack_rows(workspace<T, sums::along_rows>& work, index slot, const stored_view<>& w,
                        const neurons& selection, index place, index last, index first, index count) {
    detail::pack_rows<T>(work.panels[slot], panel_rows_of{w, selection, place, last}, first, count);
  }

  template <class T, class Task, class Pack, class Finish>
  static void multiply(const Task& task, index panels, Pack&& pack, Finish&& finish) {
    finish_rows(task, sum_panels<T>(task, panels, pack, [](auto tokens, index, index) { return tokens; }),
                finish);
  }

  template <class T, class Task, class Finish>
  static void combine(const Task& task, index panels, const stored_view<>& w, const neurons& selection,
                      Finish&& finish) {
    if constexpr (rounded_format<T>) {
      alignas(64) std::int16_t ratios[group_rows / block_size][panel_depth<std::int16_t>];
      alignas(64) std::int16_t scaled[panel_tokens * panel_depth<std::int16_t>];
      const auto pack = [&](index place, index count) {
        for (index block = 0; block < task.columns() / block_size; ++block)
          pack_columns<T>(task.work.panels + block * panels_in_block, ratios[block], w, selection,
                          task.first + block * block_size, place, count);
      };
      const auto adapt = [&](token_panel<std::int16_t> at, index h, index count) {
        if (h % panels_in_block == 0) scale_tokens(at, ratios[h / panels_in_block], count, scaled);
        at.values = scaled;
        return at;
      };
      finish_rows(task, sum_panels<T>(task, panels, pack, adapt), finish);
    } else if constexpr (neuron_format<T> && takes_integers<Task>) {
      const auto pack = [&](index first, index count) {
        for (index block = 0; block < task.columns() / block_size; ++block)
          pack_neurons<T>(task.work.panels + block * panels_in_block, w, task.first + block * block_size,
                          first, count);
      };
      multiply<T>(task, panels, pack, finish);
    } else {
      const auto pack = [&](index place, index count) {
        pack_columns<T>(task.work.panels, w, selection, task.first, task.columns(), place, count);
      };
      multiply<T>(task, panels, pack, finish);
    }
  }

 private:
  template <class Task>
  static constexpr bool takes_integers =
      !std::is_same_v<std::remove_cvref_t<decltype(Task::x)>, packed_tokens<float>>;

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

  /// sums[t][panel_rows h + r] = sum over k of x[t][k] * weight k of row r of panel h; pack(first, count)
  /// fills the panels with that part of the sum, adapt(panel, h, count) may change a panel of tokens for
  /// panel h of weights.
  template <class T, class Task, class Pack, class Adapt>
  static const float* sum_panels(const Task& task, index panels, Pack&& pack, Adapt&& adapt) {
    auto& x = task.x;
    float* sums = task.work.sums.at_least(x.padded_rows() * group_rows);
    std::fill_n(sums, x.padded_rows() * group_rows, 0.0f);
    for (index chunk = 0; chunk < x.chunks(); ++chunk) {
      const index first = chunk * x.depth, count = std::min(x.depth, x.cols() - first);
      pack(first, count);
      for (index t = 0; t < x.panels(); ++t) {
        auto stored = x.panel(chunk, t);
        stored.next = stored.values + panel_tokens * x.depth;
        float* to = sums + t * panel_tokens * group_rows;
        for (index h = 0; h < panels; ++h) {
          add_panel<T>(task.work.panels[h], adapt(stored, h, count), count, to + h * panel_rows);
          stored.next += panel_tokens / panels_at_once * x.depth;  // what prefetch_next() asked for
        }
      }
    }
    return sums;
  }

  template <class Task, class Finish>
  static void finish_rows(const Task& task, const float* sums, Finish&& finish) {
    for (index t = 0; t < task.y.rows; ++t) finish(t, sums + t * group_rows);
  }

  std::size_t threads_;
  state<float> exact_;
  state<std::int16_t> rounded_16_;
  state<std::int8_t> rounded_8_;
};

using panel_products = many_token_products<panel_scheme>;

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Products of a handful of tokens that each have rows of the weights of their own. The tokens walk through
// their rows side by side, a step each in turn: sets of neurons are spread alike over a matrix, so what
// one token has read from memory the others mostly find in the cache. What a token gets is formed as it is
// for a token alone, bit for bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/row_products.hpp"
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Bytes of weights that a token reads in one step: they must stay in a core's own cache until the others
/// have read them.
inline constexpr index step_bytes = 128 * 1024;

/// In how many steps walkers go side by side through `places` rows of `row_bytes`, all threads together.
inline index steps_of(index walkers, index places, index row_bytes, const thread_pool& pool) {
  return walkers > 1 ? std::max<index>(1, places * row_bytes / (pool.size() * step_bytes)) : 1;
}

/// Calls body(thread, token, first, last, step) for the places of each token, of which it has count_of(token)
/// and which are split among threads as those of one token are.
template <class CountOf, class Body>
void walk_side_by_side(thread_pool& pool, index tokens, index grain, index row_bytes, CountOf&& count_of,
                       Body&& body) {
  index most = 0;
  for (index t = 0; t < tokens; ++t) most = std::max(most, count_of(t));
  const index steps = steps_of(tokens, most, row_bytes, pool);
  const auto walk = [&](int thread) {
    for (index step = 0; step < steps; ++step)
      for (index t = 0; t < tokens; ++t)
        if (const auto own = pool.range_of(thread, count_of(t), grain); !own.empty())
          body(thread, t, own.first, own.last, walk_step{step, steps});
  };
  if (pool.size() == 1 || most <= grain) return walk(0);
  pool.on_every_thread(walk);
}

/// The neurons that any of several tokens has.
class united_neurons {
 public:
  /// Nothing where they are all `count`. Valid until the next call.
  neurons of(std::span<const neurons> of_rows, index count) {
    wanted_.assign(static_cast<std::size_t>(count), 0);
    for (const neurons& own : of_rows) {
      if (!own) return {};
      for (const std::int32_t n : *own) wanted_[static_cast<std::size_t>(n)] = 1;
    }
    list_.clear();
    for (index n = 0; n < count; ++n)
      if (wanted_[static_cast<std::size_t>(n)] != 0) list_.push_back(static_cast<std::int32_t>(n));
    return index_view<>{list_.data(), std::ssize(list_)};
  }

 private:
  std::vector<std::uint8_t> wanted_;
  std::vector<std::int32_t> list_;
};

/// The same for tokens with rows of_rows of `w`: body(token, its rows, first, last, step). A place takes
/// `factor` rows of that shape.
template <class Body>
void walk_own_rows(thread_pool& pool, index grain, std::span<const neurons> of_rows, const stored_view<>& w,
                   index factor, Body&& body) {
  const auto set_of = [&](index t) -> const neurons& { return of_rows[static_cast<std::size_t>(t)]; };
  walk_side_by_side(
      pool, std::ssize(of_rows), grain, factor * stored_bytes(w.type, 1, w.cols),
      [&](index t) { return count_of(set_of(t), w.rows); },
      [&](int, index t, index first, index last, walk_step step) { body(t, set_of(t), first, last, step); });
}

/// Counts one token with all rows of `w` that any has, count(how many, which), and what the others multiply
/// of them, `factor` rows for each neuron.
template <class Count>
void count_each(work_counters& counters, united_neurons& united, std::span<const neurons> of_rows,
                const stored_view<>& w, index factor, Count&& count) {
  const neurons read = united.of(of_rows, w.rows);
  const index rows = count_of(read, w.rows);
  index pairs = 0;
  for (const neurons& own : of_rows) pairs += count_of(own, w.rows);
  count(rows, read);
  counters.count_more_pairs(factor * (pairs - rows), w);
}

/// Sums of weighted rows: each thread sums its own rows, and the partial sums are then added in the order of
/// the threads.
class row_sums {
 public:
  /// y[t] = sum over places i of x[t, i] * w[row of i], i of the same rows for all tokens
  template <class T>
  void sum(thread_pool& pool, std::span<growing_buffer<>> scratch, index grain, matrix_view<float> y,
           matrix_view<const float> x, const stored_view<>& w, const neurons& selection) {
    begin(pool, x.rows);
    const index groups = (x.rows + index{sum_tokens} - 1) / index{sum_tokens}, places = x.cols;
    const index steps = steps_of(groups, places, stored_bytes(w.type, 1, w.cols), pool);
    pool.for_ranges(places, grain, [&](int thread, index first, index last) {
      for (index step = 0; step < steps; ++step)
        for_token_groups<sum_tokens>(x.rows, [&](index token, auto together) {
          add<T, together>(pool, scratch, thread, x, token, w, selection, first, last, {step, steps});
        });
    });
    finish(pool, y);
  }

  /// The same where token t has rows of_rows[t] of its own.
  template <class T>
  void sum_each(thread_pool& pool, std::span<growing_buffer<>> scratch, index grain, matrix_view<float> y,
                matrix_view<const float> x, const stored_view<>& w, std::span<const neurons> of_rows) {
    begin(pool, x.rows);
    const auto set_of = [&](index t) -> const neurons& { return of_rows[static_cast<std::size_t>(t)]; };
    walk_side_by_side(
        pool, x.rows, grain, stored_bytes(w.type, 1, w.cols),
        [&](index t) { return count_of(set_of(t), w.rows); },
        [&](int thread, index t, index first, index last, walk_step step) {
          add<T, 1>(pool, scratch, thread, x, t, w, set_of(t), first, last, step);
        });
    finish(pool, y);
  }

 private:
  void begin(const thread_pool& pool, index tokens) {
    partials_.assign(static_cast<std::size_t>(pool.size() * tokens), nullptr);
  }

  /// Adds a step's rows to the thread's sums of `Together` tokens from `token` on.
  template <class T, std::size_t Together>
  void add(const thread_pool& pool, std::span<growing_buffer<>> scratch, int thread,
           matrix_view<const float> x, index token, const stored_view<>& w, const neurons& selection,
           index first, index last, walk_step step) {
    // A row of room, then the sums of each token.
    float* const room = scratch[static_cast<std::size_t>(thread)].at_least((1 + x.rows) * w.cols);
    const auto partials = for_each_token<Together>(
        [&](std::size_t t) { return room + (1 + token + static_cast<index>(t)) * w.cols; });
    for (std::size_t t = 0; t < Together; ++t) {
      if (step.number == 0) std::fill_n(partials[t], w.cols, 0.0f);
      partials_[place_of(token + static_cast<index>(t), thread, pool)] = partials[t];
    }
    accumulate_rows<T>(partials, room, rows_of(x, tokens_from<Together>(token)), w, selection, first, last,
                       step);
  }

  void finish(const thread_pool& pool, matrix_view<float> y) const {
    for (index t = 0; t < y.rows; ++t) {
      std::fill_n(y.row(t).data, y.cols, 0.0f);
      for (int thread = 0; thread < pool.size(); ++thread)
        if (const float* partial = partials_[place_of(t, thread, pool)])
          detail::add_rows(y.row(t), y.row(t).data, partial);
    }
  }

  static std::size_t place_of(index t, int thread, const thread_pool& pool) {
    return static_cast<std::size_t>(t * pool.size() + thread);
  }

  std::vector<float*> partials_;  // of every token those of every thread; null: it had no rows
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

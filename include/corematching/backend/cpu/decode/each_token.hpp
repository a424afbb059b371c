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

/// Calls body(thread, token, first, last, step) for the places of each token, of which it has count_of(token)
/// and which are split among threads as those of one token are.
template <class CountOf, class Body>
void walk_side_by_side(thread_pool& pool, index tokens, index grain, index row_bytes, CountOf&& count_of,
                       Body&& body) {
  index most = 0;
  for (index t = 0; t < tokens; ++t) most = std::max(most, count_of(t));
  const index steps = tokens > 1 ? std::max<index>(1, most * row_bytes / (pool.size() * step_bytes)) : 1;
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
  /// y[t] = sum over the places i of token t, whose rows are set_of(t), of x[t, i] * w[row of i]
  template <class T, class SetOf>
  void sum(thread_pool& pool, std::span<growing_buffer<>> scratch, index grain, matrix_view<float> y,
           matrix_view<const float> x, const stored_view<>& w, SetOf&& set_of) {
    const index cols = w.cols;
    partials_.assign(static_cast<std::size_t>(pool.size() * x.rows), nullptr);
    walk_side_by_side(
        pool, x.rows, grain, stored_bytes(w.type, 1, cols),
        [&](index t) { return count_of(set_of(t), w.rows); },
        [&](int thread, index t, index first, index last, walk_step step) {
          // A row of room, then the sums of each token.
          float* const room = scratch[static_cast<std::size_t>(thread)].at_least((1 + x.rows) * cols);
          float* const partial = room + (1 + t) * cols;
          if (step.number == 0) std::fill_n(partial, cols, 0.0f);
          accumulate_rows<T>(partial, room, x.row(t).data, w, set_of(t), first, last, step);
          partials_[place_of(t, thread, pool)] = partial;
        });
    for (index t = 0; t < x.rows; ++t) {
      std::fill_n(y.row(t).data, y.cols, 0.0f);
      for (int thread = 0; thread < pool.size(); ++thread)
        if (const float* partial = partials_[place_of(t, thread, pool)])
          detail::add_rows(y.row(t), y.row(t).data, partial);
    }
  }

 private:
  static std::size_t place_of(index t, int thread, const thread_pool& pool) {
    return static_cast<std::size_t>(t * pool.size() + thread);
  }

  std::vector<float*> partials_;  // of every token those of every thread; null: it had no rows
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

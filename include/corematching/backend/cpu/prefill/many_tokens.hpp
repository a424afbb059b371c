// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill), whatever multiplies them. A thread takes a group of
// columns of the result at a time: it packs the weights that make them, a few hundred elements of the sum at
// a time, and walks over all tokens with what it packed. Weights are read once, tokens from a shared cache.
//
// How numbers are packed and multiplied is a scheme's to say. Weights are packed into slots, each of
// `slot_rows` rows (or columns) of theirs, `slots` of which make a group. A scheme has, for weights stored as
// one of `formats` and for sums along the rows of the weights (y = x W^T) or across them (y = x W):
//   sums_along_neurons<T>               whether sums across all rows are sums::along_neurons
//   tokens<T, Way>, workspace<T, Way>   packed tokens, of which there is one, and what each thread packs into
//   tokens_of<T, Way>(), workspace_of<T, Way>(thread)
//   pack_tokens<T, Way>(pool, tokens, x)
//   pack_rows<T>(workspace, slot, w, selection, place, last, first, count)
//     elements first..first + count of the rows at the places from `place` on; behind `last`, any
//   multiply<T>(task, slots, pack, finish)            sums along the rows: pack(first, count) fills the slots
//   combine<T>(task, slots, w, selection, finish)     sums across the rows, of columns task.first..task.last
//     both call finish(t, sums) with the sums of token t, slot after slot
//   for_groups(pool, grain, most, columns, body)
//     body(thread, first, last) for groups of at most `most` columns
// and takes most_tokens tokens at once, a multiple of unit_tokens.
#pragma once

#include <algorithm>
#include <cstdint>

#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Which way sums run through the weights. Along neurons is across all rows where blocks run that way too.
enum class sums : std::uint8_t { along_rows, across_rows, along_neurons };

/// A group of columns first..last of a product of the tokens `x`, for one thread.
template <class Tokens, class Workspace>
struct group_task {
  matrix_view<float> y;
  Tokens& x;
  Workspace& work;
  index first, last;

  index columns() const { return last - first; }
  /// What of token `t`'s result the group makes.
  vector_view<float> result(index t) const { return {y.row(t).data + first, columns()}; }
};

/// The products of a backend with many tokens, and the memory that they share.
template <class Scheme>
class many_token_products {
 public:
  explicit many_token_products(int threads) : scheme_(threads) {}

  /// y = x W^T + bias
  void matmul(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
              const stored_view<>& w, vector_view<const float> bias) {
    for_groups<sums::along_rows>(pool, grain, Scheme::slots, y, x, w.type, [&]<class T>(const auto& task) {
      const index slots = slots_of(task.columns());
      const auto pack = [&](index first, index count) {
        for (index slot = 0; slot < slots; ++slot)
          Scheme::template pack_rows<T>(task.work, slot, w, {}, task.first + slot * Scheme::slot_rows,
                                        task.last, first, count);
      };
      Scheme::template multiply<T>(task, slots, pack, [&](index t, const float* row) {
        biased_row(task.result(t), row, bias.empty() ? nullptr : bias.data + task.first);
      });
    });
  }

  /// y = act(x gate^T) * (x up^T), rows `selection` of both; half of the slots for each.
  void gated_up(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                const stored_view<>& gate, const stored_view<>& up, activation act,
                const neurons& selection) {
    const auto gated = [&]<class T>(const auto& task) {
      const index half = slots_of(task.columns());
      const auto pack = [&](index first, index count) {
        for (index slot = 0; slot < half; ++slot) {
          const index place = task.first + slot * Scheme::slot_rows;
          Scheme::template pack_rows<T>(task.work, slot, gate, selection, place, task.last, first, count);
          Scheme::template pack_rows<T>(task.work, half + slot, up, selection, place, task.last, first,
                                        count);
        }
      };
      Scheme::template multiply<T>(task, 2 * half, pack, [&](index t, const float* row) {
        gated_row(act, task.result(t), row, row + half * Scheme::slot_rows);
      });
    };
    for_groups<sums::along_rows>(pool, grain, Scheme::slots / 2, y, x, gate.type, gated);
  }

  /// y = x W, rows `selection` of it.
  void weighted_rows(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                     const stored_view<>& w, const neurons& selection) {
    const auto combined = [&]<class T>(const auto& task) {
      Scheme::template combine<T>(
          task, slots_of(task.columns()), w, selection,
          [&](index t, const float* row) { std::copy_n(row, task.columns(), task.result(t).data); });
    };
    if (!selection && sums_along_neurons(w.type))
      for_groups<sums::along_neurons>(pool, grain, Scheme::slots, y, x, w.type, combined);
    else
      for_groups<sums::across_rows>(pool, grain, Scheme::slots, y, x, w.type, combined);
  }

 private:
  static bool sums_along_neurons(dtype type) {
    return visit_weights(type, []<class T>() { return Scheme::template sums_along_neurons<T>; });
  }
  static index slots_of(index rows) { return (rows + Scheme::slot_rows - 1) / Scheme::slot_rows; }

  /// Calls body(task) for groups of at most `slots` slots of columns, for equal parts of the tokens where
  /// there are too many.
  template <sums Way, class Body>
  void for_groups(thread_pool& pool, index grain, index slots, matrix_view<float> y,
                  matrix_view<const float> x, dtype type, Body&& body) {
    const index units = (x.rows + Scheme::unit_tokens - 1) / Scheme::unit_tokens;
    const index parts = (x.rows + Scheme::most_tokens - 1) / Scheme::most_tokens;
    const index step = (units + parts - 1) / parts * Scheme::unit_tokens;
    visit_weights(type, [&]<class T>() {
      if constexpr (Scheme::formats::template has<T> &&
                    (Way != sums::along_neurons || Scheme::template sums_along_neurons<T>)) {
        using tokens = typename Scheme::template tokens<T, Way>;
        using workspace = typename Scheme::template workspace<T, Way>;
        tokens& packed = scheme_.template tokens_of<T, Way>();
        for (index row = 0; row < x.rows; row += step) {
          const auto some = x.middle_rows(row, std::min(step, x.rows - row));
          packed.reserve(some.rows, some.cols);
          Scheme::template pack_tokens<T, Way>(pool, packed, some);
          const auto one_group = [&](int thread, index first, index last) {
            workspace& work = scheme_.template workspace_of<T, Way>(thread);
            body.template operator()<T>(
                group_task<tokens, workspace>{y.middle_rows(row, some.rows), packed, work, first, last});
          };
          Scheme::for_groups(pool, grain, slots * Scheme::slot_rows, y.cols, one_group);
        }
      }
    });
  }

  Scheme scheme_;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

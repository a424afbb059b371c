// SPDX-License-Identifier: Apache-2.0
// Attention with many queries: panels of sixteen query rows of one key/value head against chunks of its keys
// and values, with a softmax that goes on from chunk to chunk (FlashAttention, arXiv 2205.14135), so no
// matrix of all scores exists. Query heads that share a key/value head are rows of the same panels, and all
// panels of a task share the chunks that it copies. A panel's result depends on nothing but its own rows and
// the keys that one of them sees: a value that is not finite spoils all of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/attention_kernels.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/simd/rows.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// The query rows that share one key/value head: row r is query r / group, its head r % group of the group.
struct shared_rows {
  matrix_view<float> y;
  matrix_view<const float> q;
  attention_shape shape;
  index keys, kv_head;

  index group() const { return shape.heads / shape.kv_heads; }
  index count() const { return q.rows * group(); }
  index panels() const { return (count() + panel_queries - 1) / panel_queries; }
  index query(index row) const { return row / group(); }
  index column(index row) const { return (kv_head * group() + row % group()) * shape.head_dim; }
  index visible(index row) const { return shape.visible_keys(query(row), q.rows, keys); }
  index first_visible(index row) const { return shape.first_visible_key(query(row), q.rows, keys); }
  /// The first row that sees `key`.
  index first_to_see(index key) const {
    return shape.causal ? std::max<index>(0, key - (keys - q.rows)) * group() : 0;
  }
  /// The row behind the last one that sees `key`.
  index end_of_seeing(index key) const {
    return shape.window > 0 ? std::min(count(), (key - (keys - q.rows) + shape.window) * group()) : count();
  }
};

/// Elements rounded up to whole vectors of eight.
inline index padded_depth(index head_dim) {
  return (head_dim + 7) / 8 * 8;
}

/// Asks for `count` elements of a row.
template <class T>
void prefetch_row(const T* row, index count) {
  for (index k = 0; k < count; k += 64 / index{sizeof(T)}) prefetch(row + k);
}

/// Sixteen of the rows: queries and sums, both [padded_depth][16], and the state of the softmax.
class query_panel {
 public:
  static index floats(index head_dim) {
    return index{sizeof(running_softmax) / sizeof(float)} + 2 * padded_depth(head_dim) * panel_queries;
  }

  /// Panel `panel` in `memory` of `floats`.
  query_panel(const shared_rows& rows, index panel, float* memory)
      : rows_(rows),
        first_(panel * panel_queries),
        last_(std::min(first_ + panel_queries, rows.count())),
        softmax_(*reinterpret_cast<running_softmax*>(memory)),
        queries_(memory + sizeof(running_softmax) / sizeof(float)),
        sums_(queries_ + padded_depth(rows.shape.head_dim) * panel_queries) {}

  /// Takes the queries, scaled for scores in units of ln 2; lanes behind the last row repeat it.
  void begin() {
    const index d = rows_.shape.head_dim;
    const f32x8 scale = f32x8::broadcast(rows_.shape.scale * 1.44269504f);
    for (index half = 0; half < panel_queries; half += 8) {
      std::array<const float*, 8> from;
      for (std::size_t r = 0; r < 8; ++r)
        from[r] = query(std::min(first_ + half + static_cast<index>(r), last_ - 1));
      for_vectors<f32x8>(rows_.shape.head_dim, [&](index k, auto size) {
        std::array<f32x8, 8> block;
        for (std::size_t r = 0; r < 8; ++r) block[r] = load_up_to<f32x8>(from[r] + k, size) * scale;
        transpose(block);
        for (std::size_t i = 0; i < 8; ++i) block[i].store(at(queries_, k + static_cast<index>(i)) + half);
      });
    }
    std::fill_n(sums_, padded_depth(d) * panel_queries, 0.0f);
    softmax_.reset();
  }

  /// The keys from the first that its first row sees to behind the last that its last row sees.
  index first_visible() const { return rows_.first_visible(first_); }
  index visible() const { return rows_.visible(last_ - 1); }

  /// Asks for the memory that begin() reads and finish() writes.
  void prefetch_queries() const {
    for (index row = first_; row < last_; ++row) prefetch_row(query(row), rows_.shape.head_dim);
  }
  void prefetch_results() const {
    for (index row = first_; row < last_; ++row) prefetch_row(result(row), rows_.shape.head_dim);
  }

  /// Attends to the keys first..first + count, whose chunks are given; `scores` has room for a chunk.
  void attend(const float* keys, const float* values, index first, index count, float* scores) {
    const index seen = std::min(count, visible() - first);
    if (seen <= 0 || first + count <= first_visible()) return;
    const index d = rows_.shape.head_dim;
    for (index part = 0; part < d; part += attended_elements)
      for_groups(seen, [&]<std::size_t Size>(index key, std::integral_constant<std::size_t, Size>) {
        score_keys<Size>(queries_ + part * panel_queries,
                         keys + part * attended_keys + key * attended_elements,
                         std::min(attended_elements, d - part), part > 0, scores + key * panel_queries);
      });
    hide(first, seen, scores);
    const f32x16 factor = softmax_.add(scores, seen);
    for (index part = 0; part < d; part += attended_elements)
      for_groups(std::min(attended_elements, d - part),
                 [&]<std::size_t Size>(index column, std::integral_constant<std::size_t, Size>) {
                   add_values<Size>(scores, values + part * attended_keys + column, seen, factor,
                                    sums_ + (part + column) * panel_queries);
                 });
  }

  /// Writes sums over totals.
  void finish() {
    for (index half = 0; half < panel_queries; half += 8) {
      const f32x8 share = f32x8::broadcast(1) / f32x8::load(softmax_.total + half);
      std::array<float*, 8> to;
      for (std::size_t r = 0; r < 8; ++r) {
        const index row = first_ + half + static_cast<index>(r);
        to[r] = row < last_ ? result(row) : queries_;  // whose values nobody needs any more
      }
      for_vectors<f32x8>(rows_.shape.head_dim, [&](index k, auto size) {
        std::array<f32x8, 8> block;
        for (std::size_t i = 0; i < 8; ++i)
          block[i] = f32x8::load(at(sums_, k + static_cast<index>(i)) + half) * share;
        transpose(block);
        for (std::size_t r = 0; r < 8; ++r) store_up_to(block[r], to[r] + k, size);
      });
    }
  }

 private:
  const float* query(index row) const { return rows_.q.row(rows_.query(row)).data + rows_.column(row); }
  float* result(index row) const { return rows_.y.row(rows_.query(row)).data + rows_.column(row); }
  static float* at(float* vectors, index i) { return vectors + i * panel_queries; }

  /// Scores of -infinity where a row does not see a key: later ones, and those that its window left behind.
  void hide(index first, index seen, float* scores) const {
    constexpr float hidden = -std::numeric_limits<float>::infinity();
    for (index j = std::max<index>(0, rows_.visible(first_) - first); j < seen; ++j)
      std::fill_n(scores + j * panel_queries, rows_.first_to_see(first + j) - first_, hidden);
    const index behind = std::min(seen, rows_.first_visible(last_ - 1) - first);
    for (index j = 0; j < behind; ++j) {
      const index rows = std::max<index>(0, rows_.end_of_seeing(first + j) - first_);
      std::fill(scores + j * panel_queries + rows, scores + (j + 1) * panel_queries, hidden);
    }
  }

  const shared_rows& rows_;
  index first_, last_;
  running_softmax& softmax_;
  float* queries_;
  float* sums_;
};

/// What the panels of a task read: the columns of one head, stored as `T`.
template <class T>
struct head_columns {
  const stored_view<>& stored;
  index column, cols;

  /// Asks for the rows first..last.
  void ask(index first, index last) const {
    for (index i = first; i < last; ++i) prefetch_row(typed_row<T>(stored, i) + column, cols);
  }

  /// The rows first..first + count as chunks of binary32 side by side.
  void copy(index first, index count, float* to) const {
    for (index part = 0; part < cols; part += attended_elements)
      for (index i = 0; i < count; ++i)
        widen(typed_row<T>(stored, first + i) + column + part, std::min(attended_elements, cols - part),
              to + part * attended_keys + i * attended_elements);
  }
};

/// The panels first_panel..last_panel of `rows`.
template <class T>
void attend_panels(const shared_rows& rows, const stored_view<>& k, const stored_view<>& v, index first_panel,
                   index last_panel, growing_buffer<>& scratch) {
  const index d = rows.shape.head_dim, panels = last_panel - first_panel;
  const head_columns<T> k_head{k, rows.kv_head * d, d}, v_head{v, rows.kv_head * d, d};
  const index chunks = (d + attended_elements - 1) / attended_elements * attended_elements * attended_keys;
  const index panel_floats = query_panel::floats(d);
  float* const keys = scratch.at_least(2 * chunks + attended_keys * panel_queries + panels * panel_floats);
  float* const values = keys + chunks;
  float* const scores = values + chunks;
  const auto panel_at = [&](index i) {
    return query_panel(rows, first_panel + i, scores + attended_keys * panel_queries + i * panel_floats);
  };
  const index visible = panel_at(panels - 1).visible(), start = panel_at(0).first_visible();
  for (index first = start; first < visible; first += attended_keys) {
    const index count = std::min(attended_keys, visible - first), next = first + count;
    const index next_count = std::min(attended_keys, visible - next);
    k_head.copy(first, count, keys);
    v_head.copy(first, count, values);
    for (index i = 0; i < panels; ++i) {
      // Heads are narrow columns of wide rows, which the processor does not foresee: each panel asks for a
      // part of the next chunk.
      const index from = next + next_count * i / panels, to = next + next_count * (i + 1) / panels;
      k_head.ask(from, to);
      v_head.ask(from, to);
      query_panel panel = panel_at(i);
      if (first == start) {
        if (i + 1 < panels) panel_at(i + 1).prefetch_queries();
        panel.begin();
      }
      const bool last = panel.visible() > first && panel.visible() <= next;
      if (last) panel.prefetch_results();
      panel.attend(keys, values, first, count, scores);
      if (last) panel.finish();
    }
  }
}

/// y = softmax(q k^T * scale) v. Threads take ranges of panels of one key/value head: long ones, for they
/// share the copies of keys and values, where every thread still gets several of them.
inline void attend_many(thread_pool& pool, std::vector<growing_buffer<>>& scratch, matrix_view<float> y,
                        matrix_view<const float> q, const stored_view<>& k, const stored_view<>& v,
                        const attention_shape& shape) {
  constexpr index longest = 32, ranges_per_thread = 4;
  const index panels = shared_rows{y, q, shape, k.rows, 0}.panels();
  const index length =
      std::clamp<index>(panels * shape.kv_heads / (ranges_per_thread * pool.size()), 1, longest);
  const index ranges = (panels + length - 1) / length;
  visit_elements(k.type, [&]<class T>() {
    pool.for_tasks(ranges * shape.kv_heads, [&](int thread, index task) {
      const shared_rows rows{y, q, shape, k.rows, task / ranges};
      // The last queries first: where attention is causal theirs are the longest tasks.
      const index range = ranges - 1 - task % ranges;
      attend_panels<T>(rows, k, v, panels * range / ranges, panels * (range + 1) / ranges,
                       scratch[static_cast<std::size_t>(thread)]);
    });
  });
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

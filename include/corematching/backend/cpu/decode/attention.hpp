// SPDX-License-Identifier: Apache-2.0
// Softmax attention of few queries (decode) over keys and values that lie as [keys, kv_heads * head_dim]: the
// row kernels, all query heads of a key/value head together. prefill/attention.hpp has that of many queries.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/simd/exponential.hpp"
#include "corematching/backend/cpu/simd/rows.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// p = softmax(p) in place.
inline void softmax(float* p, index size) {
  const vector_view<float> row{p, size};
  const auto weight = [largest = f32x16::broadcast(largest_in(row))](f32x16 x) { return exp(x - largest); };
  map_rows(row, weight, p);
  const auto share = [total = f32x16::broadcast(sum_of(row))](f32x16 x) { return x / total; };
  map_rows(row, share, p);
}

/// The key/value heads first..last of a cache, and the rows of it that one query sees.
struct visible_heads {
  const stored_view<>& stored;
  const attention_shape& shape;
  index first, last, visible;

  index group() const { return shape.heads / shape.kv_heads; }
};

/// Head `head` of the rows at `places`. A thread walks along its heads and then to the next row, so its reads
/// are streams that run on, where one head after the other would touch every page of the cache once for each.
template <class T, std::size_t Rows>
row_streams<Rows> head_streams(const visible_heads& heads, index head,
                               const std::array<index, Rows>& places) {
  const auto at = [&](index place, index of) {
    return heads.stored.data + std::min(place, heads.visible - 1) * heads.stored.row_bytes +
           of * heads.shape.head_dim * index{sizeof(T)};
  };
  row_streams<Rows> streams;
  for (std::size_t r = 0; r < Rows; ++r)
    streams[r] = {at(places[r], head),
                  head + 1 < heads.last ? at(places[r], head + 1) : at(places[r] + 1, heads.first)};
  return streams;
}

/// Up to this many query rows are attended one after the other.
inline constexpr index largest_attention_batch = 4;

/// Weights of the keys, stored as `T`, for the query heads that share `heads`: p[i, j] = softmax_j(q . k_j *
/// scale) in rows `stride` apart.
template <class T>
void attend_keys(float* p, index stride, const float* q, const visible_heads& heads) {
  const index group = heads.group(), d = heads.shape.head_dim;
  for_places<4>(0, heads.visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    for (index head = heads.first; head < heads.last; ++head) {
      const auto streams = head_streams<T>(heads, head, places);
      for_token_groups<number_tokens>(group, [&](index of, auto together) {
        const auto queries = for_each_token<together>(
            [&](std::size_t t) { return q + (head * group + of + static_cast<index>(t)) * d; });
        const auto dots = dot_rows<T>(streams, queries, d);
        for (std::size_t t = 0; t < together; ++t) {
          float* row = p + ((head - heads.first) * group + of + static_cast<index>(t)) * stride;
          for (std::size_t r = 0; r < Rows; ++r) row[places[r]] = dots[t][r] * heads.shape.scale;
        }
      });
    }
  });
  for (index i = 0; i < (heads.last - heads.first) * group; ++i) softmax(p + i * stride, heads.visible);
}

/// y = sum over j of p[i, j] * v_j, stored as `T`, for the query heads that share `heads`.
template <class T>
void combine_values(float* y, const float* p, index stride, const visible_heads& heads) {
  const index group = heads.group(), d = heads.shape.head_dim;
  std::fill(y + heads.first * group * d, y + heads.last * group * d, 0.0f);
  for_places<8>(0, heads.visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    for (index head = heads.first; head < heads.last; ++head) {
      const auto streams = head_streams<T>(heads, head, places);
      for_token_groups<sum_tokens>(group, [&](index of, auto together) {
        dot_products<Rows, together> factors;
        for (std::size_t t = 0; t < together; ++t) {
          const float* row = p + ((head - heads.first) * group + of + static_cast<index>(t)) * stride;
          for (std::size_t r = 0; r < Rows; ++r) factors[t][r] = row[places[r]];
        }
        const auto sums = for_each_token<together>(
            [&](std::size_t t) { return y + (head * group + of + static_cast<index>(t)) * d; });
        add_weighted_rows<T>(streams, factors, d, sums);
      });
    }
  });
}

/// All query rows, for the key/value heads first..last. `scratch` holds the weights of one row.
template <class T>
void attend_rows(matrix_view<float> y, matrix_view<const float> q, const stored_view<>& k,
                 const stored_view<>& v, const attention_shape& shape, index first, index last,
                 growing_buffer<>& scratch) {
  for (index i = 0; i < q.rows; ++i) {
    const index begin = shape.first_visible_key(i, q.rows, k.rows);
    const index visible = shape.visible_keys(i, q.rows, k.rows) - begin;
    const stored_view<> seen_keys = k.middle_rows(begin, visible),
                        seen_values = v.middle_rows(begin, visible);
    float* p = scratch.at_least((last - first) * (shape.heads / shape.kv_heads) * visible);
    attend_keys<T>(p, visible, q.row(i).data, {seen_keys, shape, first, last, visible});
    combine_values<T>(y.row(i).data, p, visible, {seen_values, shape, first, last, visible});
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

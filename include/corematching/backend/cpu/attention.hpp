// SPDX-License-Identifier: Apache-2.0
// Softmax attention over keys and values that lie as [keys, kv_heads * head_dim]. Prefill takes a block of
// queries of one head at a time through Eigen; a single query (decode) goes through the row kernels, all
// query heads of one key/value head together.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/eigen_views.hpp"
#include "corematching/backend/cpu/growing_buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/row_kernels.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

inline constexpr index query_block = 64;

/// How many keys query `i` of `queries` sees.
inline index visible_keys(const attention_shape& shape, index i, index queries, index keys) {
  return shape.causal ? keys - queries + i + 1 : keys;
}

/// p = softmax(p) in place.
inline void softmax(float* p, index size) {
  eigen_row row(p, size);
  row = (row - row.maxCoeff()).exp();
  row /= row.sum();
}

/// The slices of one head, from `column` on, of the cached rows at `places`.
template <std::size_t Rows>
row_streams<Rows> head_rows(matrix_view<const float> cached, index column,
                            const std::array<index, Rows>& places, index last) {
  const weight_view<> slice{reinterpret_cast<const std::byte*>(cached.data + column), dtype::f32, cached.rows,
                            cached.cols - column, cached.stride * index{sizeof(float)}};
  return streams_at(slice, {}, places, last);
}

/// Scores of one query row of head `head` with its visible keys, normalised: p[j] = softmax_j(q . k_j *
/// scale).
inline void attend_keys(float* p, const float* q, matrix_view<const float> k, index head,
                        const attention_shape& shape, index visible) {
  const index column = head / (shape.heads / shape.kv_heads) * shape.head_dim;
  for_places<4>(0, visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    const auto dots =
        dot_rows<float>(head_rows(k, column, places, visible), q + head * shape.head_dim, shape.head_dim);
    for (std::size_t r = 0; r < Rows; ++r) p[places[r]] = dots[r] * shape.scale;
  });
  softmax(p, visible);
}

/// out = sum over j of p[j] * v_j for one head.
inline void combine_values(float* out, const float* p, matrix_view<const float> v, index column,
                           index head_dim, index visible) {
  std::fill_n(out, head_dim, 0.0f);
  for_places<8>(0, visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    std::array<float, Rows> factors;
    for (std::size_t r = 0; r < Rows; ++r) factors[r] = p[places[r]];
    add_weighted_rows<float>(head_rows(v, column, places, visible), factors, head_dim, out);
  });
}

/// One query row, the query heads that share key/value head `kv_head`. `scratch` holds the weights of one
/// head.
inline void attend_one(vector_view<float> y, const float* q, matrix_view<const float> k,
                       matrix_view<const float> v, const attention_shape& shape, index kv_head, index visible,
                       growing_buffer<>& scratch) {
  const index group = shape.heads / shape.kv_heads;
  float* p = scratch.at_least(visible);
  for (index head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    attend_keys(p, q, k, head, shape, visible);
    combine_values(y.data + head * shape.head_dim, p, v, kv_head * shape.head_dim, shape.head_dim, visible);
  }
}

/// Queries first..first+count of one head: S = Q K^T * scale, rows masked and normalised, Y = S V.
inline void attend_block(matrix_view<float> y, matrix_view<const float> q, matrix_view<const float> k,
                         matrix_view<const float> v, const attention_shape& shape, index head, index first,
                         index count, growing_buffer<>& scratch) {
  const index d = shape.head_dim, column = head / (shape.heads / shape.kv_heads) * d;
  const index keys = visible_keys(shape, first + count - 1, q.rows, k.rows);
  const matrix_view<float> scores{scratch.at_least(count * keys), count, keys, keys};
  const auto slice = [](auto m, index row, index rows, index col, index cols) {
    m.data += row * m.stride + col;
    m.rows = rows;
    m.cols = cols;
    return m;
  };
  as_eigen(scores).noalias() =
      as_eigen(slice(q, first, count, head * d, d)) * as_eigen(slice(k, 0, keys, column, d)).transpose();
  for (index i = 0; i < count; ++i) {
    const index visible = visible_keys(shape, first + i, q.rows, k.rows);
    float* row = scores.row(i).data;
    eigen_row(row, visible) *= shape.scale;
    softmax(row, visible);
    std::fill(row + visible, row + keys, 0.0f);
  }
  as_eigen(slice(y, first, count, head * d, d)).noalias() =
      as_eigen(scores) * as_eigen(slice(v, 0, keys, column, d));
}

/// Query-key pairs that attention computes.
inline std::uint64_t attended_pairs(const attention_shape& shape, index queries, index keys) {
  std::uint64_t pairs = 0;
  for (index i = 0; i < queries; ++i)
    pairs += static_cast<std::uint64_t>(visible_keys(shape, i, queries, keys));
  return pairs;
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

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

/// p = softmax(p) in place.
inline void softmax(float* p, index size) {
  eigen_row row(p, size);
  row = (row - row.maxCoeff()).exp();
  row /= row.sum();
}

/// Columns column..column + cols of a matrix of elements of type `T`.
template <class T>
weight_view<> columns_of(const weight_view<>& m, index column, index cols) {
  return {m.data + column * index{sizeof(T)}, m.type, m.rows, cols, m.row_bytes};
}

/// Scores of one query row of head `head` with its visible keys, stored as `T` and normalised: p[j] =
/// softmax_j(q . k_j
/// * scale).
template <class T>
void attend_keys(float* p, const float* q, const weight_view<>& k, index head, const attention_shape& shape,
                 index visible) {
  const weight_view<> keys =
      columns_of<T>(k, head / (shape.heads / shape.kv_heads) * shape.head_dim, shape.head_dim);
  for_places<4>(0, visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    const auto dots =
        dot_rows<T>(streams_at(keys, {}, places, visible), q + head * shape.head_dim, shape.head_dim);
    for (std::size_t r = 0; r < Rows; ++r) p[places[r]] = dots[r] * shape.scale;
  });
  softmax(p, visible);
}

/// out = sum over j < visible of p[j] * v_j, stored as `T`, for one head.
template <class T>
void combine_values(float* out, const float* p, const weight_view<>& values, index visible) {
  std::fill_n(out, values.cols, 0.0f);
  for_places<8>(0, visible, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
    std::array<float, Rows> factors;
    for (std::size_t r = 0; r < Rows; ++r) factors[r] = p[places[r]];
    add_weighted_rows<T>(streams_at(values, {}, places, visible), factors, values.cols, out);
  });
}

/// One query row, the query heads that share key/value head `kv_head`. `scratch` holds the weights of one
/// head.
template <class T>
void attend_one(vector_view<float> y, const float* q, const weight_view<>& k, const weight_view<>& v,
                const attention_shape& shape, index kv_head, index visible, growing_buffer<>& scratch) {
  const index group = shape.heads / shape.kv_heads;
  const weight_view<> values = columns_of<T>(v, kv_head * shape.head_dim, shape.head_dim);
  float* p = scratch.at_least(visible);
  for (index head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    attend_keys<T>(p, q, k, head, shape, visible);
    combine_values<T>(y.data + head * shape.head_dim, p, values, visible);
  }
}

/// All query rows, for the key/value heads first..last.
template <class T>
void attend_rows(matrix_view<float> y, matrix_view<const float> q, const weight_view<>& k,
                 const weight_view<>& v, const attention_shape& shape, index first, index last,
                 growing_buffer<>& scratch) {
  for (index i = 0; i < q.rows; ++i) {
    const index visible = shape.visible_keys(i, q.rows, k.rows);
    for (index head = first; head < last; ++head)
      attend_one<T>(y.row(i), q.row(i).data, k, v, shape, head, visible, scratch);
  }
}

/// The first `rows` rows of the columns column..column + cols as binary32: in place where they are, otherwise
/// in `scratch`.
inline matrix_view<const float> widened_slice(const weight_view<>& m, index rows, index column, index cols,
                                              growing_buffer<>& scratch) {
  if (m.type == dtype::f32)
    return {typed_row<float>(m, 0) + column, rows, cols, m.row_bytes / index{sizeof(float)}};
  float* to = scratch.at_least(rows * cols);
  visit_elements(m.type, [&]<class T>(const T*) {
    for (index i = 0; i < rows; ++i) widen(typed_row<T>(m, i) + column, cols, to + i * cols);
  });
  return {to, rows, cols, cols};
}

/// Queries first..first+count of one head: S = Q K^T * scale, rows masked and normalised, Y = S V.
inline void attend_block(matrix_view<float> y, matrix_view<const float> q, const weight_view<>& k,
                         const weight_view<>& v, const attention_shape& shape, index head, index first,
                         index count, growing_buffer<>& scratch, growing_buffer<>& slice_scratch) {
  const index d = shape.head_dim, column = head / (shape.heads / shape.kv_heads) * d;
  const index keys = shape.visible_keys(first + count - 1, q.rows, k.rows);
  const matrix_view<float> scores{scratch.at_least(count * keys), count, keys, keys};
  const auto slice = [&](auto m) {
    m.data += first * m.stride + head * d;
    m.rows = count;
    m.cols = d;
    return m;
  };
  as_eigen(scores).noalias() =
      as_eigen(slice(q)) * as_eigen(widened_slice(k, keys, column, d, slice_scratch)).transpose();
  for (index i = 0; i < count; ++i) {
    const index visible = shape.visible_keys(first + i, q.rows, k.rows);
    float* row = scores.row(i).data;
    eigen_row(row, visible) *= shape.scale;
    softmax(row, visible);
    std::fill(row + visible, row + keys, 0.0f);
  }
  as_eigen(slice(y)).noalias() =
      as_eigen(scores) * as_eigen(widened_slice(v, keys, column, d, slice_scratch));
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

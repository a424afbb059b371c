// SPDX-License-Identifier: Apache-2.0
// The library's views as Eigen sees them, and stored rows as matrices of binary32.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "corematching/backend/backend.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::eigen {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_vector = Eigen::Matrix<float, 1, Eigen::Dynamic>;
template <class M>
using strided = Eigen::Map<M, Eigen::Unaligned, Eigen::OuterStride<>>;

inline strided<matrix> mapped(matrix_view<float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}
inline strided<const matrix> mapped(matrix_view<const float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}
inline Eigen::Map<const row_vector> mapped(vector_view<const float> v) {
  return {v.data, v.size};
}

/// Row `i` as binary32; exact in every storage type.
inline void widen_row(const stored_view<>& stored, index i, float* to) {
  visit_dtype(stored.type, [&]<class T>() {
    if constexpr (block_format<T>) {
      dequantise(blocks_of_row<T>(stored, i), 0, stored.cols, to);
    } else {
      const T* const row = typed_row<T>(stored, i);
      std::transform(row, row + stored.cols, to, [](T value) { return to_float(value); });
    }
  });
}

/// Stores a row as row `i` of a matrix of `rows` rows without gaps of type `type`, rounded to it.
inline void store_row(vector_view<const float> row, dtype type, std::byte* to, index rows, index i) {
  visit_rounded(type, [&]<class T>() {
    if constexpr (block_format<T>) {
      quantise_row<T>(row.data, row.size, to, rows, i);
    } else {
      std::transform(row.begin(), row.end(), reinterpret_cast<T*>(to) + i * row.size, [](float value) {
        if constexpr (std::is_same_v<T, f16>) return to_f16(value);
        if constexpr (std::is_same_v<T, bf16>) return to_bf16(value);
        if constexpr (std::is_same_v<T, float>) return value;
      });
    }
  });
}

/// Copies row `j` of x to row `i` of y, which is of the same type and may be the same memory.
inline void copy_row(const mutable_stored_view<>& y, index i, const stored_view<>& x, index j) {
  std::memmove(y.data + i * y.row_bytes, x.data + j * x.row_bytes,
               static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols)));
}

/// The rows `first`..`first + count` of a weight, or of those of its rows that are selected.
inline matrix widened(const stored_view<>& w, index first, index count,
                      const neuron_selection<host_space>& selection = {}) {
  matrix rows(count, w.cols);
  for (index i = 0; i < count; ++i)
    widen_row(w, selection ? (*selection)[first + i] : first + i, rows.row(i).data());
  return rows;
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::eigen

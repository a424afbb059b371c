// SPDX-License-Identifier: Apache-2.0
// Weights in another storage type, and transposed: panels of rows are widened to binary32, checked, and
// stored anew.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/backend/weight_limits.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Stores `cols` values as row `i` of a matrix of `rows` rows of type `T`.
template <class T>
void store_row(const float* from, index cols, std::byte* matrix, index rows, index i) {
  check_weights({from, cols}, dtype_of<T>);
  if constexpr (block_format<T>) {
    quantise_row<T>(from, cols, matrix, rows, i);
  } else {
    narrow(from, cols, reinterpret_cast<T*>(matrix) + i * cols);
  }
}

/// Rows of a panel: of a transposed one, the columns that share a few cache lines of every source row.
inline constexpr index converted_rows = 64;

/// Rows first..last of the source, or of the transposed of it, as binary32 without gaps.
template <class T>
void widen_panel(const stored_view<>& source, bool transposed, index first, index last, float* panel) {
  static_assert(converted_rows % format_traits<T>::group == 0);
  if (!transposed) {
    for (index i = first; i < last; ++i)
      widen_row<T>(source, i, 0, source.cols, panel + (i - first) * source.cols);
    return;
  }
  float column[converted_rows];
  for (index i = 0; i < source.rows; ++i) {
    widen_row<T>(source, i, first, last - first, column);
    for (index j = 0; j < last - first; ++j) panel[j * source.rows + i] = column[j];
  }
}

/// Rows of `cols` elements, without gaps, as the rows first..last of a matrix of `rows` rows of type `T`.
template <class T>
void store_panel(const float* panel, index first, index last, index cols, std::byte* matrix, index rows) {
  for (index i = first; i < last; ++i) store_row<T>(panel + (i - first) * cols, cols, matrix, rows, i);
}

/// The weight, or its transposed, as `target`; `scratch` has a buffer for each thread of the pool. Throws
/// `error` where rows are no whole blocks of `target`, a value is none that it can store, or it is only read.
inline weight<host_space> convert_weight(thread_pool& pool, std::vector<growing_buffer<>>& scratch,
                                         const stored_view<>& source, dtype target, bool transposed) {
  const auto widen = visit_dtype(source.type, []<class T>() { return widen_panel<T>; });
  const auto store = visit_rounded(target, []<class T>() { return store_panel<T>; });
  const index rows = transposed ? source.cols : source.rows;
  const index cols = transposed ? source.rows : source.cols;
  check_row_length(source.cols, source.type);
  check_row_length(cols, target);
  const auto row_bytes = static_cast<index>(bytes_of(target, static_cast<std::size_t>(cols)));
  auto memory = weight_memory(stored_bytes(target, rows, cols));
  const index panels = (rows + converted_rows - 1) / converted_rows;
  pool.for_tasks(panels, [&](int thread, index panel) {
    const index first = panel * converted_rows, last = std::min(rows, first + converted_rows);
    float* const widened = scratch[static_cast<std::size_t>(thread)].at_least((last - first) * cols);
    widen(source, transposed, first, last, widened);
    store(widened, first, last, cols, memory.get(), rows);
  });
  return {{memory.get(), target, rows, cols, row_bytes}, memory};
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

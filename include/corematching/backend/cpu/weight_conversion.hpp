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
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Stores `size` values as one row of type `T`.
template <class T>
void store_row(const float* from, index size, std::byte* to) {
  check_weights({from, size}, dtype_of<T>);
  if constexpr (block_format<T>) {
    quantise_row<T>(from, size, to);
  } else {
    narrow(from, size, reinterpret_cast<T*>(to));
  }
}

/// Rows of a panel: of a transposed one, the columns that share a few cache lines of every source row.
inline constexpr index converted_rows = 64;

/// Rows first..last of the source, or of the transposed of it, as binary32 without gaps.
inline void widen_panel(const stored_view<>& source, bool transposed, index first, index last, float* panel) {
  visit_dtype(source.type, [&]<class T>(const T*) {
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
  });
}

/// Rows first..last of the result; `panel` has room for so many in binary32.
inline void convert_rows(const stored_view<>& source, bool transposed, dtype target, std::byte* result,
                         index first, index last, float* panel) {
  const index cols = transposed ? source.rows : source.cols;
  const auto row_bytes = static_cast<index>(bytes_of(target, static_cast<std::size_t>(cols)));
  widen_panel(source, transposed, first, last, panel);
  visit_dtype(target, [&]<class T>(const T*) {
    for (index i = first; i < last; ++i)
      store_row<T>(panel + (i - first) * cols, cols, result + i * row_bytes);
  });
}

/// The weight, or its transposed, as `target`; `scratch` has a buffer for each thread of the pool.
inline weight<host_space> convert_weight(thread_pool& pool, std::vector<growing_buffer<>>& scratch,
                                         const stored_view<>& source, dtype target, bool transposed) {
  const index rows = transposed ? source.cols : source.rows;
  const index cols = transposed ? source.rows : source.cols;
  check_row_length(cols, target);
  const auto row_bytes = bytes_of(target, static_cast<std::size_t>(cols));
  auto memory = weight_memory(row_bytes * static_cast<std::size_t>(rows));
  const index panels = (rows + converted_rows - 1) / converted_rows;
  pool.for_tasks(panels, [&](int thread, index panel) {
    const index first = panel * converted_rows, last = std::min(rows, first + converted_rows);
    convert_rows(source, transposed, target, memory.get(), first, last,
                 scratch[static_cast<std::size_t>(thread)].at_least((last - first) * cols));
  });
  return {{memory.get(), target, rows, cols, static_cast<index>(row_bytes)}, memory};
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

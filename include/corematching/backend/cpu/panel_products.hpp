// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill): Eigen, panel by panel, each panel widened to
// binary32 first when it is stored otherwise.
#pragma once

#include <algorithm>

#include "corematching/backend/cpu/eigen_views.hpp"
#include "corematching/backend/cpu/growing_buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/row_kernels.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Weight rows of one Eigen product: large enough that packing the activations again for each panel is cheap.
inline constexpr index panel_rows = 512;
/// Output columns that one thread takes at least: two threads then never write to one cache line, and no
/// block of quantised weights is split between them.
inline constexpr index column_grain = block_size;

/// Rows first..first+count of the restricted matrix, columns from `column` on, as binary32: in place where
/// they already are contiguous binary32, in `scratch` otherwise.
inline matrix_view<const float> widened_panel(const weight_view<>& w, const neurons& selection, index first,
                                              index count, index column, index columns,
                                              growing_buffer<>& scratch) {
  if (w.type == dtype::f32 && !selection)
    return {typed_row<float>(w, first) + column, count, columns, w.row_bytes / index{sizeof(float)}};
  float* panel = scratch.at_least(count * columns);
  visit_dtype(w.type, [&]<class T>(const T*) {
    for (index i = 0; i < count; ++i)
      widen_row<T>(w, row_of(selection, first + i), column, columns, panel + i * columns);
  });
  return {panel, count, columns, columns};
}

/// y[:, first..last] = x w[first..last]^T + bias
inline void multiply_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& w,
                            const neurons& selection, vector_view<const float> bias, index first, index last,
                            growing_buffer<>& scratch) {
  for (index i = first; i < last; i += panel_rows) {
    const index count = std::min(panel_rows, last - i);
    const auto panel = widened_panel(w, selection, i, count, 0, w.cols, scratch);
    auto out = as_eigen(matrix_view<float>{y.data + i, y.rows, count, y.stride});
    out.noalias() = as_eigen(x) * as_eigen(panel).transpose();
    if (!bias.empty()) out.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(bias.data + i, count);
  }
}

inline void gated_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& gate,
                         const weight_view<>& up, activation act, const neurons& selection, index first,
                         index last, growing_buffer<>& scratch, growing_buffer<>& up_scratch) {
  for (index i = first; i < last; i += panel_rows) {
    const index count = std::min(panel_rows, last - i);
    const matrix_view<float> gates{y.data + i, y.rows, count, y.stride};
    const matrix_view<float> ups{up_scratch.at_least(y.rows * count), y.rows, count, count};
    as_eigen(gates).noalias() =
        as_eigen(x) * as_eigen(widened_panel(gate, selection, i, count, 0, gate.cols, scratch)).transpose();
    as_eigen(ups).noalias() =
        as_eigen(x) * as_eigen(widened_panel(up, selection, i, count, 0, up.cols, scratch)).transpose();
    for (index t = 0; t < y.rows; ++t) {
      activate_row(act, gates.row(t));
      Eigen::Map<Eigen::ArrayXf>(gates.row(t).data, count) *=
          Eigen::Map<const Eigen::ArrayXf>(ups.row(t).data, count);
    }
  }
}

/// y[:, first..last] = x w[neurons, first..last]; many tokens.
inline void combine_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& w,
                           const neurons& selection, index first, index last, growing_buffer<>& scratch) {
  auto out = as_eigen(matrix_view<float>{y.data + first, y.rows, last - first, y.stride});
  out.setZero();
  for (index i = 0; i < x.cols; i += panel_rows) {
    const index count = std::min(panel_rows, x.cols - i);
    const auto panel = widened_panel(w, selection, i, count, first, last - first, scratch);
    out.noalias() +=
        as_eigen(matrix_view<const float>{x.data + i, x.rows, count, x.stride}) * as_eigen(panel);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Products with weight matrices. A handful of tokens (decode) goes through the row kernels, which read every
// weight once in its storage type; many tokens (prefill) go through Eigen, panel by panel, each panel widened
// to binary32 first when it is stored in 16 bits.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <optional>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/buffer.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/row_kernels.hpp"
#include "corematching/backend/cpu/thread_pool.hpp"

namespace corematching::cpu {

/// Grows to the largest size asked for and keeps it, so that a steady state allocates nothing.
class growing_buffer {
 public:
  float* at_least(index size) {
    if (size > storage_.size()) storage_ = buffer<float>(size);
    return storage_.data();
  }

 private:
  buffer<float> storage_;
};

inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using eigen_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using eigen_map = Eigen::Map<eigen_matrix, Eigen::Unaligned, Eigen::OuterStride<>>;
using eigen_const_map = Eigen::Map<const eigen_matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

inline eigen_map as_eigen(matrix_view<float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}
inline eigen_const_map as_eigen(matrix_view<const float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}

/// Up to this many tokens the row kernels win: they read 16-bit weights as they are and need no packing.
inline constexpr index few_tokens = 4;
/// Weight rows of one Eigen product: large enough that packing the activations again for each panel is cheap.
inline constexpr index panel_rows = 512;
/// Output columns that one thread takes at least; two threads then never write to one cache line.
inline constexpr index column_grain = 16;

using neurons = neuron_selection<host_space>;

inline index count_of(const neurons& selection, index all) {
  return selection ? selection->size : all;
}

/// The stored row that stands at place `i` of a restricted matrix.
inline index row_of(const neurons& selection, index i) {
  return selection ? selection->data[i] : i;
}

template <std::size_t Rows>
std::array<index, Rows> rows_of(const neurons& selection, std::array<index, Rows> places) {
  for (index& place : places) place = row_of(selection, place);
  return places;
}

/// Rows first..first+count of the restricted matrix, columns from `column` on, as binary32: in place where
/// they already are contiguous binary32, in `scratch` otherwise.
inline matrix_view<const float> widened_panel(const weight_view<>& w, const neurons& selection, index first,
                                              index count, index column, index columns,
                                              growing_buffer& scratch) {
  if (w.type == dtype::f32 && !selection)
    return {typed_row<float>(w, first) + column, count, columns, w.row_bytes / index{sizeof(float)}};
  float* panel = scratch.at_least(count * columns);
  visit_dtype(w.type, [&]<class T>(const T*) {
    for (index i = 0; i < count; ++i)
      widen(typed_row<T>(w, row_of(selection, first + i)) + column, columns, panel + i * columns);
  });
  return {panel, count, columns, columns};
}

/// y[:, i] = x . w[row i] for the places first..last of the restricted matrix; few tokens.
template <class T>
void multiply_rows(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& w,
                   const neurons& selection, vector_view<const float> bias, index first, index last) {
  in_blocks_of_four(first, last, [&](auto places) {
    const auto rows = row_pointers<T>(w, rows_of(selection, places));
    for (index t = 0; t < x.rows; ++t) {
      const auto dots = dot_rows(rows, x.row(t).data, x.cols);
      for (std::size_t r = 0; r < places.size(); ++r)
        y.row(t).data[places[r]] = dots[r] + (bias.empty() ? 0.0f : bias.data[places[r]]);
    }
  });
}

/// The same for many tokens: y[:, panel] = x panel^T.
inline void multiply_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& w,
                            const neurons& selection, vector_view<const float> bias, index first, index last,
                            growing_buffer& scratch) {
  for (index i = first; i < last; i += panel_rows) {
    const index count = std::min(panel_rows, last - i);
    const auto panel = widened_panel(w, selection, i, count, 0, w.cols, scratch);
    auto out = as_eigen(matrix_view<float>{y.data + i, y.rows, count, y.stride});
    out.noalias() = as_eigen(x) * as_eigen(panel).transpose();
    if (!bias.empty()) out.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(bias.data + i, count);
  }
}

/// One token and one block of neurons: act(gate . x) * (up . x), both matrices in one pass.
template <class T>
void gated_rows(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& gate,
                const weight_view<>& up, activation act, const neurons& selection, index first, index last) {
  in_blocks_of_four(first, last, [&](auto places) {
    const auto rows = rows_of(selection, places);
    const auto gate_rows = row_pointers<T>(gate, rows), up_rows = row_pointers<T>(up, rows);
    for (index t = 0; t < x.rows; ++t) {
      const auto gates = dot_rows(gate_rows, x.row(t).data, x.cols);
      const auto ups = dot_rows(up_rows, x.row(t).data, x.cols);
      for (std::size_t r = 0; r < places.size(); ++r)
        y.row(t).data[places[r]] = activated(act, gates[r]) * ups[r];
    }
  });
}

inline void gated_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& gate,
                         const weight_view<>& up, activation act, const neurons& selection, index first,
                         index last, growing_buffer& scratch, growing_buffer& up_scratch) {
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

/// partial += sum over places first..last of x[place] * w[row of place]; one token.
template <class T>
void accumulate_rows(float* partial, const float* x, const weight_view<>& w, const neurons& selection,
                     index first, index last) {
  in_blocks_of_four(first, last, [&]<std::size_t Rows>(std::array<index, Rows> places) {
    std::array<float, Rows> factors;
    for (std::size_t r = 0; r < Rows; ++r) factors[r] = x[places[r]];
    add_weighted_rows(row_pointers<T>(w, rows_of(selection, places)), factors, w.cols, partial);
  });
}

/// y[:, first..last] = x w[neurons, first..last]; many tokens.
inline void combine_panels(matrix_view<float> y, matrix_view<const float> x, const weight_view<>& w,
                           const neurons& selection, index first, index last, growing_buffer& scratch) {
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

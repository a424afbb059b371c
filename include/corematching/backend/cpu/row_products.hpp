// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with a handful of tokens (decode): every weight is read once, in its storage
// type.
#pragma once

#include <array>

#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/row_kernels.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Up to this many tokens the row kernels win: they read 16-bit weights as they are and need no packing.
inline constexpr index few_tokens = 4;

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

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

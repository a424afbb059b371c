// SPDX-License-Identifier: Apache-2.0
// Products with weights of every storage type. Weights are widened some rows at a time, so that they take
// little memory and are multiplied while the processor's cache has them.
#pragma once

#include <algorithm>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/eigen/views.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::eigen {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using neurons = neuron_selection<host_space>;

/// body(first, panel) for the rows of `w`, or the selected ones, panel by panel.
template <class Body>
void for_panels(const stored_view<>& w, const neurons& selection, Body&& body) {
  constexpr index panel_rows = 128;
  const index rows = selection ? selection->size : w.rows;
  for (index first = 0; first < rows; first += panel_rows)
    body(first, widened(w, first, std::min(panel_rows, rows - first), selection));
}

/// y = x W^T
inline void multiply(matrix_view<float> y, matrix_view<const float> x, const stored_view<>& w,
                     const neurons& selection) {
  for_panels(w, selection, [&](index first, const matrix& panel) {
    mapped(y).middleCols(first, panel.rows()).noalias() = mapped(x) * panel.transpose();
  });
}

/// y = x W, where x has one column for each row of W, or each selected one.
inline void sum_rows(matrix_view<float> y, matrix_view<const float> x, const stored_view<>& w,
                     const neurons& selection) {
  mapped(y).setZero();
  for_panels(w, selection, [&](index first, const matrix& panel) {
    mapped(y).noalias() += mapped(x).middleCols(first, panel.rows()) * panel;
  });
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::eigen

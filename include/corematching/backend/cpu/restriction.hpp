// SPDX-License-Identifier: Apache-2.0
// A weight matrix restricted to some of its rows: place i of the restricted matrix is row `selection[i]`.
#pragma once

#include "corematching/backend/backend.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using neurons = neuron_selection<host_space>;

inline index count_of(const neurons& selection, index all) {
  return selection ? selection->size : all;
}

/// The stored row that stands at place `i` of a restricted matrix.
inline index row_of(const neurons& selection, index i) {
  return selection ? selection->data[i] : i;
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// A weight matrix restricted to some of its rows: place i of the restricted matrix is row `selection[i]`.
#pragma once

#include <array>

#include "corematching/backend/backend.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
namespace detail {

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

}  // namespace detail
}  // namespace corematching::cpu

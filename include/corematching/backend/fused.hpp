// SPDX-License-Identifier: Apache-2.0
// Operations that belong together, as one where the backend has it (fusing_backend), otherwise one after the
// other.
#pragma once

#include <span>

#include "corematching/backend/backend.hpp"

namespace corematching::detail {

template <class B>
using rows_view = matrix_view<float, typename B::space>;
template <class B>
using const_rows_view = matrix_view<const float, typename B::space>;

/// y = x W^T + bias of each projection of x.
template <backend B>
void project(B& be, std::span<const projection<typename B::space>> projections, const_rows_view<B> x) {
  if constexpr (fusing_backend<B>) {
    be.project(projections, x);
  } else {
    for (const auto& [y, w, bias] : projections) be.matmul(y, x, w, bias);
  }
}

/// y += x W^T + bias; `room`, shaped like y, may be overwritten.
template <backend B>
void add_matmul(B& be, rows_view<B> y, const_rows_view<B> x, const stored_view<typename B::space>& w,
                vector_view<const float, typename B::space> bias, rows_view<B> room) {
  if constexpr (fusing_backend<B>) {
    be.add_matmul(y, x, w, bias, room);
  } else {
    be.matmul(room, x, w, bias);
    be.add(y, room);
  }
}

/// y += sum over neurons of x[:, n] * W^T[n]; `room` as above.
template <backend B>
void add_weighted_rows(B& be, rows_view<B> y, const_rows_view<B> x, const stored_view<typename B::space>& w,
                       const neuron_selection<typename B::space>& neurons, rows_view<B> room) {
  if constexpr (fusing_backend<B>) {
    be.add_weighted_rows(y, x, w, neurons, room);
  } else {
    be.weighted_rows(room, x, w, neurons);
    be.add(y, room);
  }
}

/// Turns the heads of queries and keys.
template <backend B>
void rotate(B& be, rows_view<B> queries, rows_view<B> keys, index_view<typename B::space> positions,
            vector_view<const float, typename B::space> frequencies) {
  if constexpr (fusing_backend<B>) {
    be.rotary(queries, keys, positions, frequencies);
  } else {
    be.rotary(queries, positions, frequencies, queries.cols / (2 * frequencies.size));
    be.rotary(keys, positions, frequencies, keys.cols / (2 * frequencies.size));
  }
}

/// Stores rows of keys and of values.
template <backend B>
void store(B& be, mutable_stored_view<typename B::space> keys, mutable_stored_view<typename B::space> values,
           const_rows_view<B> new_keys, const_rows_view<B> new_values) {
  if constexpr (fusing_backend<B>) {
    be.store_rows(keys, values, new_keys, new_values);
  } else {
    be.store_rows(keys, new_keys);
    be.store_rows(values, new_values);
  }
}

}  // namespace corematching::detail

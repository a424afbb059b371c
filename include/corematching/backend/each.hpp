// SPDX-License-Identifier: Apache-2.0
// Products of several tokens, each with rows of the weights of its own, as one operation where the backend
// has it (batching_backend), otherwise token after token. What a token gets is bit for bit what it gets
// alone.
#pragma once

#include <cstddef>
#include <span>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/fused.hpp"

namespace corematching::detail {

/// The neurons of each token.
template <class B>
using neurons_of_rows = std::span<const neuron_selection<typename B::space>>;

template <class B>
index count_of_row(neurons_of_rows<B> of_rows, index i, index all) {
  const auto& own = of_rows[static_cast<std::size_t>(i)];
  return own ? own->size : all;
}

/// Row i of `m`, of which the first `cols` columns.
template <class T, class Space>
matrix_view<T, Space> row_part(const matrix_view<T, Space>& m, index i, index cols) {
  return {m.row(i).data, 1, cols, m.stride};
}

/// y[i, j] = act(x[i] . gate_n) (x[i] . up_n), n the j-th neuron of row i.
template <backend B>
void gated_up_each(B& be, rows_view<B> y, const_rows_view<B> x, const stored_view<typename B::space>& gate,
                   const stored_view<typename B::space>& up, activation act, neurons_of_rows<B> of_rows) {
  if constexpr (batching_backend<B>) {
    be.gated_up_each(y, x, gate, up, act, of_rows);
  } else {
    for (index i = 0; i < x.rows; ++i)
      be.gated_up(row_part(y, i, count_of_row<B>(of_rows, i, gate.rows)), x.middle_rows(i, 1), gate, up, act,
                  of_rows[static_cast<std::size_t>(i)]);
  }
}

/// y[i] += sum over the neurons n of row i of x[i, j] * w[n], n its j-th one; `room`, shaped like y, may be
/// overwritten.
template <backend B>
void add_weighted_rows_each(B& be, rows_view<B> y, const_rows_view<B> x,
                            const stored_view<typename B::space>& w, neurons_of_rows<B> of_rows,
                            rows_view<B> room) {
  if constexpr (batching_backend<B>) {
    be.add_weighted_rows_each(y, x, w, of_rows, room);
  } else {
    for (index i = 0; i < x.rows; ++i)
      add_weighted_rows(be, y.middle_rows(i, 1), row_part(x, i, count_of_row<B>(of_rows, i, w.rows)), w,
                        of_rows[static_cast<std::size_t>(i)], room.middle_rows(i, 1));
  }
}

/// y[i, j] = factors[i, n] (x[i] . w[n]), n the j-th neuron of row i; no row takes all without naming them.
template <choosing_backend B>
void scaled_matmul_each(B& be, rows_view<B> y, const_rows_view<B> x, const stored_view<typename B::space>& w,
                        const_rows_view<B> factors, neurons_of_rows<B> of_rows) {
  if constexpr (batching_backend<B>) {
    be.scaled_matmul_each(y, x, w, factors, of_rows);
  } else {
    for (index i = 0; i < x.rows; ++i) {
      const auto& own = *of_rows[static_cast<std::size_t>(i)];
      be.scaled_matmul(row_part(y, i, own.size), x.middle_rows(i, 1), w, factors.row(i), own);
    }
  }
}

/// Row i of y: what finish_gated_up makes of row i of the others.
template <choosing_backend B>
void finish_gated_up_each(B& be, rows_view<B> y, const_rows_view<B> x,
                          const stored_view<typename B::space>& gate,
                          const stored_view<typename B::space>& up, const_rows_view<B> coarse_gates,
                          const_rows_view<B> coarse_ups, activation act, neurons_of_rows<B> of_rows) {
  if constexpr (batching_backend<B>) {
    be.finish_gated_up_each(y, x, gate, up, coarse_gates, coarse_ups, act, of_rows);
  } else {
    for (index i = 0; i < x.rows; ++i) {
      const auto& own = *of_rows[static_cast<std::size_t>(i)];
      be.finish_gated_up(row_part(y, i, own.size), x.middle_rows(i, 1), gate, up, coarse_gates.row(i),
                         coarse_ups.row(i), act, own);
    }
  }
}

}  // namespace corematching::detail

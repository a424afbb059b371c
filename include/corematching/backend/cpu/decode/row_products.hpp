// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with a handful of tokens (decode): every weight is read once, in its storage
// type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "corematching/backend/cpu/decode/block_kernels.hpp"
#include "corematching/backend/cpu/decode/neuron_kernels.hpp"
#include "corematching/backend/cpu/decode/number_plane_kernels.hpp"
#include "corematching/backend/cpu/decode/plane_kernels.hpp"
#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/decode/super_kernels.hpp"
#include "corematching/backend/cpu/decode/wide_kernels.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Up to this many tokens the row kernels win: they read weights as they are and need no packing.
inline constexpr index largest_decode_batch = 4;
/// Rows that a dot product walks at once.
inline constexpr std::size_t dot_streams = 4;

/// The few tokens of one product, in the form that weights stored as `T` take.
template <class T>
struct token_rows {
  matrix_view<const float> exact;

  /// The dot products of rows with token `t`.
  template <std::size_t Rows>
  std::array<float, Rows> dot(const row_streams<Rows>& rows, index t) const {
    return dot_rows<T>(rows, exact.row(t).data, exact.cols);
  }
};
template <block_format Q>
struct token_rows<Q> {
  rounded_tokens<token_quant<Q>>& rounded;
  index cols;

  template <std::size_t Rows>
  std::array<float, Rows> dot(const row_streams<Rows>& rows, index t) const {
    return dot_blocks<Q>(rows, rounded[t], cols);
  }
};
template <quant_plane_format Q>
struct token_rows<Q> {
  plane_tokens<token_quant<Q>, Q::plane_bits>& rounded;
  index cols;

  template <planes Which = planes::both, std::size_t Rows>
  std::array<float, Rows> dot(const plane_streams<Rows>& rows, index t) const {
    return dot_planes<Q, Which>(rows, rounded[t], cols);
  }
};
template <number_plane_format Q>
struct token_rows<Q> {
  matrix_view<const float> exact;

  template <planes Which = planes::both, std::size_t Rows>
  std::array<float, Rows> dot(const plane_streams<Rows>& rows, index t) const {
    const float* const x = exact.row(t).data;
    static_assert(Which != planes::lower, "lower bytes are worth nothing without the upper ones");
    if constexpr (Which == planes::upper) return dot_coarse<Q>(rows.upper, x, exact.cols);
    return dot_numbers<Rows>(number_plane_rows<Q, Rows>(rows, exact.cols), x, exact.cols);
  }
};

template <class Q>
requires wide_format<Q> || super_format<Q>
struct token_rows<Q> {
  rounded_tokens<std::int16_t>& rounded;
  index cols;

  template <std::size_t Rows>
  std::array<float, Rows> dot(const row_streams<Rows>& rows, index t) const {
    if constexpr (super_format<Q>)
      return dot_super_blocks<Q>(rows, rounded[t], cols);
    else
      return dot_wide<Q>(rows, rounded[t], cols);
  }
};
/// No model multiplies along the rows of these.
template <neuron_format Q>
struct token_rows<Q> {
  matrix_view<const float> exact;

  template <std::size_t Rows>
  std::array<float, Rows> dot(const std::array<quantised_row<Q>, Rows>& rows, index t) const {
    std::array<float, Rows> result{};
    float weights[block_size];
    for (std::size_t r = 0; r < Rows; ++r)
      for (index j = 0; j < exact.cols; j += block_size) {
        dequantise(rows[r], j, block_size, weights);
        for (index i = 0; i < block_size; ++i) result[r] += weights[i] * exact.row(t)[j + i];
      }
    return result;
  }
};

/// The tokens of the current product.
class decode_batch {
 public:
  /// `x`, rounded where weights stored as `T` ask for it.
  template <class T>
  token_rows<T> take(matrix_view<const float> x) {
    if constexpr (quant_plane_format<T>) {
      auto& rounded = std::get<plane_tokens<token_quant<T>, T::plane_bits>>(for_planes_);
      rounded.assign(x);
      return {rounded, x.cols};
    } else if constexpr (block_format<T> && !neuron_format<T> && !plane_format<T>) {
      auto& rounded = std::get<rounded_tokens<token_quant<T>>>(rounded_);
      rounded.assign(x);
      return {rounded, x.cols};
    } else {
      return {x};
    }
  }

 private:
  std::tuple<rounded_tokens<std::int16_t>, rounded_tokens<std::int8_t>> rounded_;
  std::tuple<plane_tokens<std::int16_t, 4>, plane_tokens<std::int8_t, 2>> for_planes_;
};

/// Token `t` of several, as the only one.
template <class T>
struct token_of_rows {
  const token_rows<T>& all;
  index t;

  template <planes... Which, class Streams>
  auto dot(const Streams& rows, index) const {
    return all.template dot<Which...>(rows, t);
  }
};

/// y += sum over r of factors[r] * row r, rows stored as `T`.
template <class T, std::size_t Rows>
void add_rows(const row_streams<Rows>& rows, const std::array<float, Rows>& factors, index cols, float* y) {
  if constexpr (!block_format<T>) {
    add_weighted_rows<T>(rows, factors, cols, y);
  } else if constexpr (Rows == sum_rows) {
    add_weighted_blocks<T>(rows, factors, cols, y);
  } else {
    static_assert(Rows == 1);
    row_streams<sum_rows> same;
    same.fill(rows[0]);
    add_weighted_blocks<T>(same, {factors[0]}, cols, y);
  }
}

/// y[:, i] = x . w[row i] + bias[i] for the places first..last of the restricted matrix.
template <class T>
void multiply_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& w,
                   const neurons& selection, vector_view<const float> bias, index first, index last) {
  for_places<dot_streams>(first, last, [&](const auto& places) {
    const auto rows = streams_of<T>(w, selection, places, last);
    for (index t = 0; t < y.rows; ++t) {
      const auto dots = x.dot(rows, t);
      for (std::size_t r = 0; r < places.size(); ++r)
        y.row(t).data[places[r]] = dots[r] + (bias.empty() ? 0.0f : bias.data[places[r]]);
    }
  });
}

/// y[:, i] = act(x . gate[row i]) * (x . up[row i]) for the places first..last, both matrices in one pass, as
/// far as the step goes.
template <class T, class Tokens>
void gated_rows(matrix_view<float> y, const Tokens& x, const stored_view<>& gate, const stored_view<>& up,
                activation act, const neurons& selection, index first, index last, walk_step step = {}) {
  for_places<dot_streams>(first, last, step, [&](const auto& places) {
    const auto gate_rows = streams_of<T>(gate, selection, places, last);
    const auto up_rows = streams_of<T>(up, selection, places, last);
    for (index t = 0; t < y.rows; ++t) {
      const auto gates = x.dot(gate_rows, t);
      const auto ups = x.dot(up_rows, t);
      for (std::size_t r = 0; r < places.size(); ++r)
        y.row(t).data[places[r]] = activated(act, gates[r]) * ups[r];
    }
  });
}

/// y[i] = factors[n] (x . w[n]) for the places first..last, n = chosen[i]; one token.
template <class T, class Tokens>
void scaled_rows(float* y, const Tokens& x, const stored_view<>& w, const float* factors, index_view<> chosen,
                 index first, index last, walk_step step = {}) {
  for_places<dot_streams>(first, last, step, [&](const auto& places) {
    const auto dots = x.dot(streams_of<T>(w, chosen, places, last), 0);
    for (std::size_t r = 0; r < places.size(); ++r) y[places[r]] = factors[chosen[places[r]]] * dots[r];
  });
}

/// y[:, i] = x . the upper plane of w[i], for the rows first..last.
template <plane_format T>
void multiply_upper_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& w, index first,
                         index last) {
  for_places<dot_streams>(first, last, [&](const auto& places) {
    const auto rows = plane_streams_at<T>(w, {}, places, last);
    for (index t = 0; t < y.rows; ++t) {
      const auto dots = x.template dot<planes::upper>(rows, t);
      for (std::size_t r = 0; r < places.size(); ++r) y.row(t).data[places[r]] = dots[r];
    }
  });
}

/// y[i] = act(coarse_gate[n] + x . lower plane of gate[n]) * (coarse_up[n] + x . lower plane of up[n]) for
/// the places first..last, n = chosen[i]. Rows of both matrices are walked at once, few of each.
template <plane_format T, class Tokens>
void finish_gated_rows(float* y, const Tokens& x, const stored_view<>& gate, const stored_view<>& up,
                       const float* coarse_gate, const float* coarse_up, activation act, index_view<> chosen,
                       index first, index last, walk_step step = {}) {
  for_places<dot_streams / 2>(first, last, step, [&](const auto& places) {
    const auto rows = joined(plane_streams_at<T>(gate, chosen, places, last),
                             plane_streams_at<T>(up, chosen, places, last));
    const auto dots = x.template dot<planes::lower>(rows, 0);
    for (std::size_t r = 0; r < places.size(); ++r) {
      const index n = chosen[places[r]];
      y[places[r]] = activated(act, coarse_gate[n] + dots[r]) * (coarse_up[n] + dots[places.size() + r]);
    }
  });
}

/// partial += sum over places first..last of x[place] * w[row of place], as far as the step goes; one token.
/// `room` is that of a row.
template <class T>
void accumulate_rows(float* partial, float* room, const float* x, const stored_view<>& w,
                     const neurons& selection, index first, index last, walk_step step) {
  if constexpr (neuron_format<T>) {
    accumulate_neurons<T>(partial, room, x, w, selection, first, last, step);
  } else if constexpr (plane_format<T> || wide_format<T> ||
                       super_format<T>) {  // which no model sums across rows
    for (index i = step.begin(last - first); i < step.end(last - first); ++i) {
      widen_row<T>(w, row_of(selection, first + i), 0, w.cols, room);
      for (index j = 0; j < w.cols; ++j) partial[j] += x[first + i] * room[j];
    }
  } else {
    for_places<sum_rows>(first, last, step, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
      std::array<float, Rows> factors;
      for (std::size_t r = 0; r < Rows; ++r) factors[r] = x[places[r]];
      add_rows<T>(streams_at(w, selection, places, last), factors, w.cols, partial);
    });
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

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
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/decode/wide_kernels.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Some of the rows of a view, and some of several tokens that were rounded.
template <std::size_t Tokens>
std::array<const float*, Tokens> rows_of(const matrix_view<const float>& x,
                                         const std::array<index, Tokens>& which) {
  return for_each_token<Tokens>([&](std::size_t t) { return x.row(which[t]).data; });
}
template <std::size_t Tokens, class Rounded>
auto tokens_of(Rounded& rounded, const std::array<index, Tokens>& which) {
  return for_each_token<Tokens>([&](std::size_t t) { return rounded[which[t]]; });
}

/// The few tokens of one product, in the form that weights stored as `T` take: dot(rows, which) are
/// the dot products of rows with some of the tokens.
template <class T>
struct token_rows {
  matrix_view<const float> exact;

  template <std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const row_streams<Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    const auto x = rows_of(exact, which);
    return dot_parts<dot_number_sums, Tokens>(
        rows, [&](const auto& some) { return dot_rows<T>(some, x, exact.cols); });
  }
};
template <block_format Q>
struct token_rows<Q> {
  rounded_tokens<token_quant<Q>>& rounded;
  index cols;

  template <std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const row_streams<Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    const auto x = tokens_of(rounded, which);
    return dot_parts<dot_sums, Tokens>(rows, [&](const auto& some) { return dot_blocks<Q>(some, x, cols); });
  }
};
template <quant_plane_format Q>
struct token_rows<Q> {
  plane_tokens<token_quant<Q>, Q::plane_bits>& rounded;
  index cols;

  template <planes Which = planes::both, std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const plane_streams<Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    return dot_planes<Q, Which>(rows, tokens_of(rounded, which), cols);
  }
};
template <number_plane_format Q>
struct token_rows<Q> {
  matrix_view<const float> exact;

  template <planes Which = planes::both, std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const plane_streams<Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    const auto x = rows_of(exact, which);
    static_assert(Which != planes::lower, "lower bytes are worth nothing without the upper ones");
    if constexpr (Which == planes::upper)
      return dot_numbers<Rows>(coarse_rows<Q, Rows>(rows.upper, exact.cols), x, exact.cols);
    else
      return dot_numbers<Rows>(number_plane_rows<Q, Rows>(rows, exact.cols), x, exact.cols);
  }
};

template <class Q>
requires wide_format<Q> || super_format<Q>
struct token_rows<Q> {
  rounded_tokens<token_quant<Q>>& rounded;
  index cols;

  template <std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const row_streams<Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    const auto x = tokens_of(rounded, which);
    return dot_parts<dot_sums, Tokens>(rows, [&](const auto& some) {
      if constexpr (super_format<Q>)
        return dot_super_blocks<Q>(some, x, cols);
      else
        return dot_wide<Q>(some, x, cols);
    });
  }
};
/// No model multiplies along the rows of these.
template <neuron_format Q>
struct token_rows<Q> {
  matrix_view<const float> exact;

  template <std::size_t Rows, std::size_t Tokens>
  dot_products<Rows, Tokens> dot(const std::array<quantised_row<Q>, Rows>& rows,
                                 const std::array<index, Tokens>& which) const {
    dot_products<Rows, Tokens> result{};
    float weights[block_size];
    for (std::size_t r = 0; r < Rows; ++r)
      for (index j = 0; j < exact.cols; j += block_size) {
        dequantise(rows[r], j, block_size, weights);
        for (std::size_t t = 0; t < Tokens; ++t)
          for (index i = 0; i < block_size; ++i) result[t][r] += weights[i] * exact.row(which[t])[j + i];
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

/// y[t] += sum over r of factors[t][r] * row r, rows stored as `T`.
template <class T, std::size_t Rows, std::size_t Tokens>
void add_rows(const row_streams<Rows>& rows, const dot_products<Rows, Tokens>& factors, index cols,
              const std::array<float*, Tokens>& y) {
  if constexpr (!block_format<T>) {
    add_weighted_rows<T>(rows, factors, cols, y);
  } else if constexpr (Rows == sum_rows) {
    add_weighted_blocks<T>(rows, factors, cols, y);
  } else {
    static_assert(Rows == 1);
    row_streams<sum_rows> same;
    same.fill(rows[0]);
    const auto once =
        for_each_token<Tokens>([&](std::size_t t) { return std::array<float, sum_rows>{factors[t][0]}; });
    add_weighted_blocks<T>(same, once, cols, y);
  }
}

/// y[:, i] = x . w[row i] + bias[i] for the places first..last of the restricted matrix.
template <class T>
void multiply_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& w,
                   const neurons& selection, vector_view<const float> bias, index first, index last) {
  for_places<dot_streams>(first, last, [&](const auto& places) {
    const auto rows = streams_of<T>(w, selection, places, last);
    for_token_groups<tokens_at_once<T>>(y.rows, [&](index token, auto tokens) {
      const auto dots = x.dot(rows, tokens_from<tokens>(token));
      for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t r = 0; r < places.size(); ++r)
          y.row(token + static_cast<index>(t)).data[places[r]] =
              dots[t][r] + (bias.empty() ? 0.0f : bias.data[places[r]]);
    });
  });
}

/// y[t, i] = act(x[t'] . gate[row i]) * (x[t'] . up[row i]) for the places first..last, t' = t + `from`, both
/// matrices in one pass, as far as the step goes.
template <class T>
void gated_rows(matrix_view<float> y, const token_rows<T>& x, index from, const stored_view<>& gate,
                const stored_view<>& up, activation act, const neurons& selection, index first, index last,
                walk_step step = {}) {
  for_places<dot_streams>(first, last, step, [&](const auto& places) {
    const auto gate_rows = streams_of<T>(gate, selection, places, last);
    const auto up_rows = streams_of<T>(up, selection, places, last);
    for_token_groups<tokens_at_once<T>>(y.rows, [&](index token, auto tokens) {
      const auto gates = x.dot(gate_rows, tokens_from<tokens>(from + token));
      const auto ups = x.dot(up_rows, tokens_from<tokens>(from + token));
      for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t r = 0; r < places.size(); ++r)
          y.row(token + static_cast<index>(t)).data[places[r]] = activated(act, gates[t][r]) * ups[t][r];
    });
  });
}

/// y[i] = factors[n] (x[token] . w[n]) for the places first..last, n = chosen[i].
template <class T>
void scaled_rows(float* y, const token_rows<T>& x, index token, const stored_view<>& w, const float* factors,
                 index_view<> chosen, index first, index last, walk_step step = {}) {
  for_places<dot_streams>(first, last, step, [&](const auto& places) {
    const auto dots = x.dot(streams_of<T>(w, chosen, places, last), std::array{token})[0];
    for (std::size_t r = 0; r < places.size(); ++r) y[places[r]] = factors[chosen[places[r]]] * dots[r];
  });
}

/// y[:, i] = x . the upper plane of w[i], for the rows first..last.
template <plane_format T>
void multiply_upper_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& w, index first,
                         index last) {
  for_places<dot_streams>(first, last, [&](const auto& places) {
    const auto rows = plane_streams_at<T>(w, {}, places, last);
    for_token_groups<tokens_at_once<T>>(y.rows, [&](index token, auto tokens) {
      const auto dots = x.template dot<planes::upper>(rows, tokens_from<tokens>(token));
      for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t r = 0; r < places.size(); ++r)
          y.row(token + static_cast<index>(t)).data[places[r]] = dots[t][r];
    });
  });
}

/// y[i] = act(coarse_gate[n] + x[token] . lower plane of gate[n]) * (coarse_up[n] + x[token] . lower plane of
/// up[n]) for the places first..last, n = chosen[i]. Rows of both matrices are walked at once, few of each.
template <plane_format T>
void finish_gated_rows(float* y, const token_rows<T>& x, index token, const stored_view<>& gate,
                       const stored_view<>& up, const float* coarse_gate, const float* coarse_up,
                       activation act, index_view<> chosen, index first, index last, walk_step step = {}) {
  for_places<dot_streams / 2>(first, last, step, [&](const auto& places) {
    const auto rows = joined(plane_streams_at<T>(gate, chosen, places, last),
                             plane_streams_at<T>(up, chosen, places, last));
    const auto dots = x.template dot<planes::lower>(rows, std::array{token})[0];
    for (std::size_t r = 0; r < places.size(); ++r) {
      const index n = chosen[places[r]];
      y[places[r]] = activated(act, coarse_gate[n] + dots[r]) * (coarse_up[n] + dots[places.size() + r]);
    }
  });
}

/// partials[t] += sum over places first..last of x[t][place] * w[row of place], as far as the step goes.
/// `room` is that of a row.
template <class T, std::size_t Tokens>
void accumulate_rows(const std::array<float*, Tokens>& partials, float* room,
                     const std::array<const float*, Tokens>& x, const stored_view<>& w,
                     const neurons& selection, index first, index last, walk_step step) {
  if constexpr (neuron_format<T>) {
    for (std::size_t t = 0; t < Tokens; ++t)
      accumulate_neurons<T>(partials[t], room, x[t], w, selection, first, last, step);
  } else if constexpr (plane_format<T> || wide_format<T> ||
                       super_format<T>) {  // which no model sums across rows
    for (index i = first + step.begin(last - first); i < first + step.end(last - first); ++i) {
      widen_row<T>(w, row_of(selection, i), 0, w.cols, room);
      for (std::size_t t = 0; t < Tokens; ++t)
        for (index j = 0; j < w.cols; ++j) partials[t][j] += x[t][i] * room[j];
    }
  } else {
    for_places<sum_rows>(first, last, step, [&]<std::size_t Rows>(const std::array<index, Rows>& places) {
      dot_products<Rows, Tokens> factors;
      for (std::size_t t = 0; t < Tokens; ++t)
        for (std::size_t r = 0; r < Rows; ++r) factors[t][r] = x[t][places[r]];
      add_rows<T>(streams_at(w, selection, places, last), factors, w.cols, partials);
    });
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

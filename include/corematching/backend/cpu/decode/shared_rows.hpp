// SPDX-License-Identifier: Apache-2.0
// Dot products of a handful of tokens that each have rows of the weights of their own, row by row: all tokens
// that want a row are multiplied with it at once. What a token gets are the bits that it gets alone, for no
// dot product depends on another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/row_products.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// A token that wants a row, and the place that the row has among its own.
struct wanting_token {
  std::int32_t token, place;
};

/// The rows that any of several tokens wants, ascending, each with the tokens that do.
class wanted_rows {
 public:
  /// Of tokens with rows of_rows, out of `count`.
  void assign(std::span<const neurons> of_rows, index count) {
    starts_.assign(static_cast<std::size_t>(count) + 1, 0);
    const auto for_wanted = [&](auto&& body) {
      for (std::size_t t = 0; t < of_rows.size(); ++t)
        for (index i = 0; i < count_of(of_rows[t], count); ++i)
          body(static_cast<std::size_t>(row_of(of_rows[t], i)),
               wanting_token{static_cast<std::int32_t>(t), static_cast<std::int32_t>(i)});
    };
    for_wanted([&](std::size_t row, wanting_token) { ++starts_[row + 1]; });
    rows_.clear();
    for (std::size_t row = 0; row < starts_.size() - 1; ++row) {
      if (starts_[row + 1] != 0) rows_.push_back(static_cast<std::int32_t>(row));
      starts_[row + 1] += starts_[row];
    }
    pairs_.resize(static_cast<std::size_t>(starts_.back()));
    for_wanted([&](std::size_t row, wanting_token pair) {
      pairs_[static_cast<std::size_t>(starts_[row]++)] = pair;
    });
    // Each start has become the next one's.
    starts_.insert(starts_.begin(), 0);
  }

  index_view<> rows() const { return {rows_.data(), std::ssize(rows_)}; }
  std::span<const wanting_token> of_row(std::int32_t row) const {
    const auto first = static_cast<std::size_t>(starts_[static_cast<std::size_t>(row)]),
               last = static_cast<std::size_t>(starts_[static_cast<std::size_t>(row) + 1]);
    return std::span(pairs_).subspan(first, last - first);
  }

  /// Whether so many tokens want the same rows that row by row is the faster way; the other one walks through
  /// several rows at once, which are those of one token (decode/each_token.hpp).
  bool are_shared() const { return 2 * std::ssize(pairs_) >= 3 * std::ssize(rows_); }

 private:
  std::vector<std::int32_t> starts_, rows_;
  std::vector<wanting_token> pairs_;
};

/// Calls body(place, tokens, streams of the row) for the rows first..last that are wanted, of which `tokens`
/// is an array of some that do.
template <class Body>
void for_wanted_rows(const wanted_rows& wanted, index first, index last, Body&& body) {
  for (index i = first; i < last; ++i) {
    const auto pairs = wanted.of_row(wanted.rows()[i]);
    for_token_groups<row_tokens>(std::ssize(pairs), [&](index from, auto count) {
      body(std::array<index, 1>{i},
           for_each_token<count>([&](std::size_t t) { return pairs[static_cast<std::size_t>(from) + t]; }));
    });
  }
}

template <std::size_t Tokens>
std::array<index, Tokens> tokens_in(const std::array<wanting_token, Tokens>& pairs) {
  return for_each_token<Tokens>([&](std::size_t t) { return index{pairs[t].token}; });
}

/// y[t, place] = act(x[t] . gate[row]) * (x[t] . up[row]) for the rows first..last that are wanted.
template <class T>
void gated_wanted_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& gate,
                       const stored_view<>& up, activation act, const wanted_rows& wanted, index first,
                       index last) {
  for_wanted_rows(wanted, first, last, [&](const auto& row, const auto& pairs) {
    const auto gates = x.dot(streams_of<T>(gate, wanted.rows(), row, last), tokens_in(pairs));
    const auto ups = x.dot(streams_of<T>(up, wanted.rows(), row, last), tokens_in(pairs));
    for (std::size_t t = 0; t < pairs.size(); ++t)
      y.row(pairs[t].token).data[pairs[t].place] = activated(act, gates[t][0]) * ups[t][0];
  });
}

/// y[t, place] = factors[t, row] (x[t] . w[row]) for the rows first..last that are wanted.
template <class T>
void scaled_wanted_rows(matrix_view<float> y, const token_rows<T>& x, const stored_view<>& w,
                        matrix_view<const float> factors, const wanted_rows& wanted, index first,
                        index last) {
  for_wanted_rows(wanted, first, last, [&](const auto& row, const auto& pairs) {
    const auto dots = x.dot(streams_of<T>(w, wanted.rows(), row, last), tokens_in(pairs));
    for (std::size_t t = 0; t < pairs.size(); ++t)
      y.row(pairs[t].token).data[pairs[t].place] =
          factors.row(pairs[t].token).data[wanted.rows()[row[0]]] * dots[t][0];
  });
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Tokens that meet the same rows of weights. Several of them are multiplied at once, so that weights are
// read and widened for all of them together; each has the sums that it would have alone, bit for bit.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// The dot products of tokens with rows: [t][r].
template <std::size_t Rows, std::size_t Tokens>
using dot_products = std::array<std::array<float, Rows>, Tokens>;

/// The same with a vector of partial sums for each.
template <class Vector, std::size_t Rows, std::size_t Tokens>
struct vector_sums {
  std::array<std::array<Vector, Rows>, Tokens> of;

  vector_sums() {
    for (auto& rows : of) rows.fill(Vector::zero());
  }
};

namespace detail {

/// Up to this many tokens the row kernels win: they read weights as they are and need no packing. Of 16
/// AMX tiles take less time with weights in blocks, panels more (docs/performance.md).
inline constexpr index largest_decode_batch = 12;
/// Rows that a dot product walks at once.
inline constexpr std::size_t dot_streams = 4;
/// Sums of a row and a token that registers hold beside what forms them, each a vector of the widest.
inline constexpr std::size_t dot_sums = COREMATCHING_HAS_AVX512 ? 16 : 8;
/// The same of numbers, whose sums have sixteen lanes everywhere.
inline constexpr std::size_t dot_number_sums = COREMATCHING_HAS_AVX512 ? 16 : 4;
/// Tokens that are multiplied with the same rows at once. In numbers of 32 bits more of them would not stay
/// in the first level of caches.
inline constexpr std::size_t block_tokens = COREMATCHING_HAS_AVX512 ? 8 : 2;
inline constexpr std::size_t number_tokens = COREMATCHING_HAS_AVX512 ? 4 : 2;
/// Tokens that are multiplied with one row at once.
inline constexpr std::size_t row_tokens = COREMATCHING_HAS_AVX512 ? 8 : 4;
/// Tokens whose weighted sums of the same rows are formed at once.
inline constexpr std::size_t sum_tokens = COREMATCHING_HAS_AVX512 ? 8 : 4;
template <class T>
inline constexpr std::size_t tokens_at_once =
    block_format<T> && !plane_format<T> ? block_tokens : number_tokens;

/// Calls body(first, count) for tokens 0..all, `Most` of them at a time, then fewer; `count` is an
/// integral_constant.
template <std::size_t Most, class Body>
void for_token_groups(index all, Body&& body, index first = 0) {
  for (; first + index{Most} <= all; first += index{Most})
    body(first, std::integral_constant<std::size_t, Most>());
  if constexpr (Most > 1) for_token_groups<Most / 2>(all, body, first);
}

/// made(t) for each of `Tokens` tokens.
template <std::size_t Tokens, class Make>
auto for_each_token(Make&& made) {
  using type = decltype(made(std::size_t{0}));
  return [&]<std::size_t... T>(std::index_sequence<T...>) {
    return std::array<type, Tokens>{{made(T)...}};
  }
  (std::make_index_sequence<Tokens>());
}

/// The tokens first, first + 1, ...
template <std::size_t Tokens>
std::array<index, Tokens> tokens_from(index first) {
  return for_each_token<Tokens>([&](std::size_t t) { return first + static_cast<index>(t); });
}

/// dot(rows) for as few rows at a time as leave `Most` sums with `Tokens` tokens.
template <std::size_t Most, std::size_t Tokens, std::size_t Rows, class Dot>
dot_products<Rows, Tokens> dot_parts(const row_streams<Rows>& rows, Dot&& dot) {
  if constexpr (Rows * Tokens <= Most || Rows == 1) {
    return dot(rows);
  } else {
    constexpr std::size_t half = Rows / 2;
    dot_products<Rows, Tokens> result;
    for (std::size_t part = 0; part < 2; ++part) {
      row_streams<half> some;
      std::copy_n(rows.begin() + part * half, half, some.begin());
      const auto dots = dot_parts<Most, Tokens>(some, dot);
      for (std::size_t t = 0; t < Tokens; ++t) std::ranges::copy(dots[t], result[t].begin() + part * half);
    }
    return result;
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

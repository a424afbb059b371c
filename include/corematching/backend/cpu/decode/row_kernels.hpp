// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode: dot products of weight rows with one vector, and weighted sums of weight rows.
// These are the ones for elements that are numbers; block_kernels.hpp has those of the block formats.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// Widens `count` stored elements.
template <class T>
void widen(const T* from, index count, float* to) {
  index i = 0;
  for (; i + 8 <= count; i += 8) f32x8::load(from + i).store(to + i);
  for (; i < count; ++i) to[i] = to_float(from[i]);
}

namespace detail {

/// Rounds `count` elements to their storage type.
template <class T>
void narrow(const float* from, index count, T* to) {
  index i = 0;
  if constexpr (!std::is_same_v<T, bf16>)
    for (; i + 8 <= count; i += 8) f32x8::load(from + i).store(to + i);
  for (; i < count; ++i) {
    if constexpr (std::is_same_v<T, float>) to[i] = from[i];
    if constexpr (std::is_same_v<T, f16>) to[i] = to_f16(from[i]);
    if constexpr (std::is_same_v<T, bf16>) to[i] = to_bf16(from[i]);
  }
}

}  // namespace detail

/// The weights of one row from `column` on, as binary32; in the block formats both are multiples of
/// block_size.
template <class T>
void widen_row(const stored_view<>& weight, index row, index column, index count, float* to) {
  if constexpr (block_format<T>) {
    dequantise(blocks_of_row<T>(weight, row), column, count, to);
  } else {
    widen(typed_row<T>(weight, row) + column, count, to);
  }
}

/// How far ahead of the arithmetic memory is asked for, in bytes. Half as much is a little slower, twice as
/// much no faster (docs/performance.md).
inline constexpr index dot_lead = 2048;
inline constexpr index sum_lead = 1024;

namespace detail {

/// Rows of numbers, as a dot product reads them: sixteen from element i on, or one; and what it asks for
/// ahead of the `step` elements from i on.
template <class T, std::size_t Rows>
class number_rows {
 public:
  static constexpr index step = 32;

  number_rows(const row_streams<Rows>& rows, index size)
      : rows_(rows), bytes_(size * index{sizeof(T)}), lead_(std::min(dot_lead, bytes_)) {
    for (std::size_t r = 0; r < Rows; ++r) from_[r] = reinterpret_cast<const T*>(rows[r].row);
  }
  f32x16 load(std::size_t r, index i) const { return f32x16::load(from_[r] + i); }
  float at(std::size_t r, index i) const { return to_float(from_[r][i]); }
  void prefetch(index i) const {
    prefetch_step<step * index{sizeof(T)} / 64>(rows_, i * index{sizeof(T)} + lead_, bytes_);
  }

 private:
  const row_streams<Rows>& rows_;
  index bytes_, lead_;
  std::array<const T*, Rows> from_;
};

/// result[t][r] = sum over i < size of row r's element i * x[t][i]
template <std::size_t Rows, std::size_t Tokens, class Numbers>
dot_products<Rows, Tokens> dot_numbers(const Numbers& rows, const std::array<const float*, Tokens>& x,
                                       index size) {
  constexpr index lanes = 16;
  vector_sums<f32x16, Rows, Tokens> sums;
  const auto add = [&](index i) {
    const auto token = for_each_token<Tokens>([&](std::size_t t) { return f32x16::load(x[t] + i); });
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x16 weights = rows.load(r, i);
      for (std::size_t t = 0; t < Tokens; ++t) sums.of[t][r] = fma(weights, token[t], sums.of[t][r]);
    }
  };
  index i = 0;
  for (; i + Numbers::step <= size; i += Numbers::step) {
    rows.prefetch(i);
    for (index j = i; j < i + Numbers::step; j += lanes) add(j);
  }
  for (; i + lanes <= size; i += lanes) add(i);
  dot_products<Rows, Tokens> result;
  for (std::size_t t = 0; t < Tokens; ++t)
    for (std::size_t r = 0; r < Rows; ++r) {
      result[t][r] = sums.of[t][r].sum();
      for (index j = i; j < size; ++j) result[t][r] += rows.at(r, j) * x[t][j];
    }
  return result;
}

}  // namespace detail

/// result[t][r] = sum over i < size of row r's element i * x[t][i]
template <class T, std::size_t Rows, std::size_t Tokens>
dot_products<Rows, Tokens> dot_rows(const row_streams<Rows>& rows, const std::array<const float*, Tokens>& x,
                                    index size) {
  return detail::dot_numbers<Rows>(detail::number_rows<T, Rows>(rows, size), x, size);
}

/// y[t][i] += sum over r of factors[t][r] * row r's element i, i < size
template <class T, std::size_t Rows, std::size_t Tokens>
void add_weighted_rows(const row_streams<Rows>& rows, const dot_products<Rows, Tokens>& factors, index size,
                       const std::array<float*, Tokens>& y) {
  constexpr index step = 64 / index{sizeof(T)};  // one cache line of each row
  const index bytes = size * index{sizeof(T)}, lead = std::min(sum_lead, bytes);
  std::array<const T*, Rows> from;
  for (std::size_t r = 0; r < Rows; ++r) from[r] = reinterpret_cast<const T*>(rows[r].row);
  const auto add = [&]<class Vector>(index i, Vector) {
    auto sums = detail::for_each_token<Tokens>([&](std::size_t t) { return Vector::load(y[t] + i); });
    for (std::size_t r = 0; r < Rows; ++r) {
      const Vector weights = Vector::load(from[r] + i);
      for (std::size_t t = 0; t < Tokens; ++t)
        sums[t] = fma(weights, Vector::broadcast(factors[t][r]), sums[t]);
    }
    for (std::size_t t = 0; t < Tokens; ++t) sums[t].store(y[t] + i);
  };
  index i = 0;
  for (; i + step <= size; i += step) {
    prefetch_step<1>(rows, i * index{sizeof(T)} + lead, bytes);
    for (index j = i; j < i + step; j += 16) add(j, f32x16());
  }
  for (; i + 8 <= size; i += 8) add(i, f32x8());
  for (; i < size; ++i)
    for (std::size_t t = 0; t < Tokens; ++t)
      for (std::size_t r = 0; r < Rows; ++r) y[t][i] += to_float(from[r][i]) * factors[t][r];
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode: dot products of weight rows with one vector, and weighted sums of weight rows.
// These are the ones for elements that are numbers; block_kernels.hpp has those of the block formats.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

#include "corematching/backend/cpu/decode/row_stream.hpp"
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

/// How far ahead of the arithmetic memory is asked for, in bytes. Half or twice as much made no difference
/// that showed.
inline constexpr index dot_lead = 1024;
inline constexpr index sum_lead = 512;

/// Elements of each row that a dot product takes at a time.
inline constexpr index dot_step = 32;

namespace detail {

/// Rows of numbers, as a dot product reads them: eight from element i on, or one; and what it asks for ahead
/// of the dot_step elements from i on.
template <class T, std::size_t Rows>
class number_rows {
 public:
  number_rows(const row_streams<Rows>& rows, index size)
      : rows_(rows), bytes_(size * index{sizeof(T)}), lead_(std::min(dot_lead, bytes_)) {
    for (std::size_t r = 0; r < Rows; ++r) from_[r] = reinterpret_cast<const T*>(rows[r].row);
  }
  f32x8 load(std::size_t r, index i) const { return f32x8::load(from_[r] + i); }
  float at(std::size_t r, index i) const { return to_float(from_[r][i]); }
  void prefetch(index i) const {
    prefetch_step<dot_step * index{sizeof(T)} / 64>(rows_, i * index{sizeof(T)} + lead_, bytes_);
  }

 private:
  const row_streams<Rows>& rows_;
  index bytes_, lead_;
  std::array<const T*, Rows> from_;
};

/// result[r] = sum over i < size of row r's element i * x[i]
template <std::size_t Rows, class Numbers>
std::array<float, Rows> dot_numbers(const Numbers& rows, const float* x, index size) {
  // Two accumulators per row hide the latency of the fused multiply-add.
  std::array<f32x8, Rows> even, odd;
  even.fill(f32x8::zero());
  odd.fill(f32x8::zero());
  index i = 0;
  for (; i + dot_step <= size; i += dot_step) {
    rows.prefetch(i);
    for (index j = i; j < i + dot_step; j += 16) {
      const f32x8 x0 = f32x8::load(x + j), x1 = f32x8::load(x + j + 8);
      for (std::size_t r = 0; r < Rows; ++r) {
        even[r] = fma(rows.load(r, j), x0, even[r]);
        odd[r] = fma(rows.load(r, j + 8), x1, odd[r]);
      }
    }
  }
  for (; i + 8 <= size; i += 8)
    for (std::size_t r = 0; r < Rows; ++r) even[r] = fma(rows.load(r, i), f32x8::load(x + i), even[r]);
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    float tail = 0;
    for (index j = i; j < size; ++j) tail += rows.at(r, j) * x[j];
    result[r] = (even[r] + odd[r]).sum() + tail;
  }
  return result;
}

}  // namespace detail

/// result[r] = sum over i < size of row r's element i * x[i]
template <class T, std::size_t Rows>
std::array<float, Rows> dot_rows(const row_streams<Rows>& rows, const float* x, index size) {
  return detail::dot_numbers<Rows>(detail::number_rows<T, Rows>(rows, size), x, size);
}

/// y[i] += sum over r of factors[r] * row r's element i, i < size
template <class T, std::size_t Rows>
void add_weighted_rows(const row_streams<Rows>& rows, const std::array<float, Rows>& factors, index size,
                       float* y) {
  constexpr index step = 64 / index{sizeof(T)};  // one cache line of each row
  const index bytes = size * index{sizeof(T)}, lead = std::min(sum_lead, bytes);
  std::array<const T*, Rows> from;
  for (std::size_t r = 0; r < Rows; ++r) from[r] = reinterpret_cast<const T*>(rows[r].row);
  const auto add_eight = [&](index i) {
    f32x8 sum = f32x8::load(y + i);
    for (std::size_t r = 0; r < Rows; ++r)
      sum = fma(f32x8::load(from[r] + i), f32x8::broadcast(factors[r]), sum);
    sum.store(y + i);
  };
  index i = 0;
  for (; i + step <= size; i += step) {
    prefetch_step<1>(rows, i * index{sizeof(T)} + lead, bytes);
    for (index j = i; j < i + step; j += 8) add_eight(j);
  }
  for (; i + 8 <= size; i += 8) add_eight(i);
  for (; i < size; ++i)
    for (std::size_t r = 0; r < Rows; ++r) y[i] += to_float(from[r][i]) * factors[r];
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

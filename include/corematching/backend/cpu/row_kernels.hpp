// SPDX-License-Identifier: Apache-2.0
// The two kernels of decode: dot products of weight rows with one vector, and weighted sums of weight rows.
// Both walk several rows at once: a single row stream leaves half of the memory bandwidth unused.
#pragma once

#include <array>

#include "corematching/backend/cpu/simd.hpp"
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

/// The weights of one row from `column` on, as binary32; in the block formats both are multiples of
/// block_size.
template <class T>
void widen_row(const weight_view<>& weight, index row, index column, index count, float* to) {
  if constexpr (block_format<T>) {
    dequantise(blocks_of_row<T>(weight, row), column, count, to);
  } else {
    widen(typed_row<T>(weight, row) + column, count, to);
  }
}

/// result[r] = sum over i < size of rows[r][i] * x[i]
template <std::size_t Rows, class T>
std::array<float, Rows> dot_rows(const std::array<const T*, Rows>& rows, const float* x, index size) {
  // Two accumulators per row hide the latency of the fused multiply-add.
  std::array<f32x8, Rows> even, odd;
  even.fill(f32x8::zero());
  odd.fill(f32x8::zero());
  index i = 0;
  for (; i + 16 <= size; i += 16) {
    const f32x8 x0 = f32x8::load(x + i), x1 = f32x8::load(x + i + 8);
    for (std::size_t r = 0; r < Rows; ++r) {
      even[r] = fma(f32x8::load(rows[r] + i), x0, even[r]);
      odd[r] = fma(f32x8::load(rows[r] + i + 8), x1, odd[r]);
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    float tail = 0;
    for (index j = i; j < size; ++j) tail += to_float(rows[r][j]) * x[j];
    result[r] = (even[r] + odd[r]).sum() + tail;
  }
  return result;
}

/// y[i] += sum over r of factors[r] * rows[r][i], i < size
template <std::size_t Rows, class T>
void add_weighted_rows(const std::array<const T*, Rows>& rows, const std::array<float, Rows>& factors,
                       index size, float* y) {
  index i = 0;
  for (; i + 8 <= size; i += 8) {
    f32x8 sum = f32x8::load(y + i);
    for (std::size_t r = 0; r < Rows; ++r)
      sum = fma(f32x8::load(rows[r] + i), f32x8::broadcast(factors[r]), sum);
    sum.store(y + i);
  }
  for (; i < size; ++i)
    for (std::size_t r = 0; r < Rows; ++r) y[i] += to_float(rows[r][i]) * factors[r];
}

/// Calls body with a block of four row numbers as long as there are four, then with single ones.
template <class Body>
void in_blocks_of_four(index first, index last, Body&& body) {
  index i = first;
  for (; i + 4 <= last; i += 4) body(std::array<index, 4>{i, i + 1, i + 2, i + 3});
  for (; i < last; ++i) body(std::array<index, 1>{i});
}

/// Pointers to the rows of `weight` that `rows` names.
template <class T, std::size_t Rows>
std::array<const T*, Rows> row_pointers(const weight_view<>& weight, const std::array<index, Rows>& rows) {
  std::array<const T*, Rows> pointers;
  for (std::size_t r = 0; r < Rows; ++r) pointers[r] = typed_row<T>(weight, rows[r]);
  return pointers;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

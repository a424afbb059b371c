// SPDX-License-Identifier: Apache-2.0
// Tokens rounded to integers, the other factor of products with the block formats: 32 elements share a scale,
// as the weights do. To how many bits, each format says for decode (backend/cpu/formats); for prefill see
// product_type and sum_type.
#pragma once

#include <cassert>
#include <cmath>
#include <concepts>
#include <cstdint>

#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// One token: element i is scales[i / 32] * quants[i].
template <class Quant>
struct rounded_token {
  const Quant* quants;
  const float* scales;
  const float* sums;  // scale times the sum of the quants of each block
};

namespace detail {

template <class Quant>
inline constexpr float largest_quant = std::same_as<Quant, std::int16_t> ? 32767.0f : 127.0f;

/// A block whose largest magnitude is below this stands for zeros: its inverse could overflow.
inline constexpr float smallest_top = 0x1p-100f;

/// quants = round(x / scale), scale = max |x| / largest of one block; returns the sum of the quants times
/// scale. An element that is not finite makes the scale NaN.
template <class Quant>
float round_block(const float* x, Quant* quants, float& scale,
                  float largest_of_quants = largest_quant<Quant>) {
  static_assert(block_size == 32);
  f32x8 part[4], largest = f32x8::broadcast(smallest_top);
  for (int i = 0; i < 4; ++i) {
    part[i] = f32x8::load(x + 8 * i);
    largest = larger_magnitude(part[i].magnitude(), largest);
  }
  const float top = largest.largest_magnitude();
  scale = top / largest_of_quants;
  const f32x8 units = f32x8::broadcast(largest_of_quants / top);
  f32x8 sum = f32x8::zero();
  std::int32_t wide[8];
  for (int i = 0; i < 4; ++i) {
    const i32x8 rounded = i32x8::rounded(part[i] * units);
    sum = sum + rounded.to_float();
    rounded.store(wide);
    for (int j = 0; j < 8; ++j) quants[8 * i + j] = static_cast<Quant>(wide[j]);
  }
  return sum.sum() * scale;
}

}  // namespace detail

/// Memory for the rounded form of a few tokens or many.
template <class Quant>
class rounded_tokens {
 public:
  /// Makes room for `rows` tokens of `cols` elements, a multiple of block_size.
  void reserve(index rows, index cols) {
    assert(cols % block_size == 0);
    cols_ = cols;
    blocks_ = cols / block_size;
    quants_.at_least(rows * cols);
    scales_.at_least(2 * rows * blocks_);
  }

  /// Rounds `x` as token `row`; different rows may be set by different threads.
  void assign(index row, vector_view<const float> x) {
    assert(x.size == cols_);
    float *scales = scales_.at_least(0) + 2 * row * blocks_, *sums = scales + blocks_;
    Quant* quants = quants_.at_least(0) + row * cols_;
    for (index b = 0; b < blocks_; ++b)
      sums[b] = detail::round_block(x.data + b * block_size, quants + b * block_size, scales[b]);
  }

  /// Rounds all rows of `x`.
  void assign(matrix_view<const float> x) {
    reserve(x.rows, x.cols);
    for (index i = 0; i < x.rows; ++i) assign(i, x.row(i));
  }

  rounded_token<Quant> operator[](index row) {
    const float* scales = scales_.at_least(0) + 2 * row * blocks_;
    return {quants_.at_least(0) + row * cols_, scales, scales + blocks_};
  }

 private:
  growing_buffer<Quant> quants_;
  growing_buffer<float> scales_;
  index cols_ = 0;
  index blocks_ = 0;
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

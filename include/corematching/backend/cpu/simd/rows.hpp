// SPDX-License-Identifier: Apache-2.0
// Rows of binary32 eight lanes at a time, and what is left at their ends.
#pragma once

#include <algorithm>
#include <functional>
#include <type_traits>

#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// The first eight of `count` elements; zeros behind them.
template <class T>
f32x8 load_up_to_eight(const T* from, index count) {
  if (count >= 8) return f32x8::load(from);
  alignas(32) float some[8] = {};
  for (index i = 0; i < count; ++i) some[i] = to_float(from[i]);
  return f32x8::load(some);
}

/// Stores the first eight of `count` elements.
inline void store_up_to_eight(f32x8 x, float* to, index count) {
  if (count >= 8) return x.store(to);
  alignas(32) float some[8];
  x.store(some);
  std::copy_n(some, count, to);
}

/// body(i, count) for the eight elements from i on, `count` being a constant, and for what is left.
template <class Body>
void for_eights(index size, Body&& body) {
  index i = 0;
  for (; i + 8 <= size; i += 8) body(i, std::integral_constant<index, 8>());
  if (i < size) body(i, size - i);
}

/// y[i] = function(x[i]...), of eight lanes each, with rows as long as y, any of which may be y.
template <class Function, class... Rows>
void map_rows(vector_view<float> y, Function&& function, const Rows*... x) {
  for_eights(y.size, [&](index i, auto count) {
    store_up_to_eight(function(load_up_to_eight(x + i, count)...), y.data + i, count);
  });
}

/// The sum of function(x[i]), or of x[i].
template <class Function = std::identity>
float sum_of(vector_view<const float> x, Function&& function = {}) {
  f32x8 sum = f32x8::zero();
  float rest = 0;
  for_eights(x.size, [&](index i, auto count) {
    const f32x8 lanes = function(load_up_to_eight(x.data + i, count));
    if (count == 8) {
      sum = sum + lanes;
    } else {
      alignas(32) float some[8];
      lanes.store(some);
      for (index j = 0; j < count; ++j) rest += some[j];
    }
  });
  return sum.sum() + rest;
}

/// The largest element; any, where there is a NaN. There must be some.
inline float largest_in(vector_view<const float> x) {
  f32x8 lanes = f32x8::broadcast(x[0]);
  index i = 0;
  for (; i + 8 <= x.size; i += 8) lanes = larger(lanes, f32x8::load(x.data + i));
  alignas(32) float some[8];
  lanes.store(some);
  float largest = *std::max_element(some, some + 8);
  for (; i < x.size; ++i) largest = std::max(largest, x[i]);
  return largest;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

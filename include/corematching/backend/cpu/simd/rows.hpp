// SPDX-License-Identifier: Apache-2.0
// Rows of binary32, vector after vector, and what is left at their ends.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <type_traits>

#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// Elements of a vector.
template <class V>
inline constexpr index lanes_of = sizeof(V) / sizeof(float);

/// The first elements of `count`, as many as a vector has; zeros behind them.
template <class V, class T>
V load_up_to(const T* from, index count) {
  if (count >= lanes_of<V>) return V::load(from);
  alignas(64) float some[lanes_of<V>] = {};
  for (index i = 0; i < count; ++i) some[i] = to_float(from[i]);
  return V::load(some);
}

/// Stores the first elements of `count`, as many as a vector has.
template <class V>
void store_up_to(V x, float* to, index count) {
  if (count >= lanes_of<V>) return x.store(to);
  alignas(64) float some[lanes_of<V>];
  x.store(some);
  std::copy_n(some, count, to);
}

/// body(i, count) for each vector `V` of elements from i on, `count` being a constant, and for what is left.
template <class V, class Body>
void for_vectors(index size, Body&& body) {
  constexpr index lanes = lanes_of<V>;
  index i = 0;
  for (; i + lanes <= size; i += lanes) body(i, std::integral_constant<index, lanes>());
  if (i < size) body(i, size - i);
}

/// y[i] = function(x[i]...), of sixteen lanes each, with rows as long as y, any of which may be y.
template <class Function, class... Rows>
void map_rows(vector_view<float> y, Function&& function, const Rows*... x) {
  for_vectors<f32x16>(y.size, [&](index i, auto count) {
    store_up_to(function(load_up_to<f32x16>(x + i, count)...), y.data + i, count);
  });
}

/// The sum of function(x[i]), of sixteen lanes, or of x[i].
template <class Function = std::identity>
float sum_of(vector_view<const float> x, Function&& function = {}) {
  // An addition waits for the one before it, so several sums run side by side.
  constexpr index lanes = lanes_of<f32x16>, sums = 4;
  f32x16 sum[sums] = {f32x16::zero(), f32x16::zero(), f32x16::zero(), f32x16::zero()};
  index i = 0;
  for (; i + sums * lanes <= x.size; i += sums * lanes)
    for (index k = 0; k < sums; ++k) sum[k] = sum[k] + function(f32x16::load(x.data + i + k * lanes));
  float rest = 0;
  alignas(64) float some[lanes];
  for_vectors<f32x16>(x.size - i, [&](index j, auto count) {
    function(load_up_to<f32x16>(x.data + i + j, count)).store(some);
    rest = std::accumulate(some, some + count, rest);
  });
  ((sum[0] + sum[1]) + (sum[2] + sum[3])).store(some);
  return std::accumulate(some, some + lanes, rest);
}

/// The largest element; any, where there is a NaN. There must be some.
inline float largest_in(vector_view<const float> x) {
  f32x16 all = f32x16::broadcast(x[0]);
  index i = 0;
  for (; i + lanes_of<f32x16> <= x.size; i += lanes_of<f32x16>) all = larger(all, f32x16::load(x.data + i));
  alignas(64) float some[lanes_of<f32x16>];
  all.store(some);
  float largest = *std::max_element(some, some + lanes_of<f32x16>);
  for (; i < x.size; ++i) largest = std::max(largest, x[i]);
  return largest;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

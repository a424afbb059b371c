// SPDX-License-Identifier: Apache-2.0
// Normalisations, nonlinearities and the rotary embedding on rows of activations.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/simd/exponential.hpp"
#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/backend/cpu/simd/rows.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

inline float activated(activation act, float x) {
  switch (act) {
    case activation::silu: return x / (1 + std::exp(-x));
    case activation::quick_gelu: return x / (1 + std::exp(-1.702f * x));
    case activation::gelu_erf: return 0.5f * x * (1 + std::erf(x * 0.70710678f));
    case activation::gelu_tanh: return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

/// x = x / (1 + exp(slope x)), elementwise.
inline void sigmoid_row(vector_view<float> x, float slope) {
  const f32x16 one = f32x16::broadcast(1), factor = f32x16::broadcast(slope);
  const auto weighed = [=](f32x16 v) { return v / (one + exp(factor * v)); };
  map_rows(x, weighed, x.data);
}

/// x = act(x), elementwise.
inline void activate_row(activation act, vector_view<float> x) {
  switch (act) {
    case activation::silu: sigmoid_row(x, -1); break;
    case activation::quick_gelu: sigmoid_row(x, -1.702f); break;
    default:
      for (float& value : x) value = activated(act, value);
  }
}

/// y = a + b, elementwise; both may be y.
inline void add_rows(vector_view<float> y, const float* a, const float* b) {
  map_rows(y, std::plus<f32x16>(), a, b);
}

/// y = a * b, elementwise; both may be y.
inline void multiply_rows(vector_view<float> y, const float* a, const float* b) {
  map_rows(y, std::multiplies<f32x16>(), a, b);
}

/// sums += |x|, elementwise.
inline void add_magnitudes(vector_view<float> sums, const float* x) {
  const auto add = [](f32x16 sum, f32x16 v) { return sum + larger(v, f32x16::zero() - v); };
  map_rows(sums, add, sums.data, x);
}

/// y = x + bias; a null bias adds nothing.
inline void biased_row(vector_view<float> y, const float* x, const float* bias) {
  if (bias == nullptr) {
    std::copy_n(x, y.size, y.data);
  } else {
    add_rows(y, x, bias);
  }
}

/// y = act(gate) * up, elementwise.
inline void gated_row(activation act, vector_view<float> y, const float* gate, const float* up) {
  std::copy_n(gate, y.size, y.data);
  activate_row(act, y);
  multiply_rows(y, y.data, up);
}

/// y = weight * (x / sqrt(mean(x^2) + eps))
inline void rms_norm_row(vector_view<float> y, vector_view<const float> x, vector_view<const float> weight,
                         float eps) {
  const float squares = sum_of(x, [](f32x16 v) { return v * v; });
  const f32x16 scale = f32x16::broadcast(1 / std::sqrt(squares / static_cast<float>(x.size) + eps));
  const auto normed = [scale](f32x16 v, f32x16 w) { return w * (v * scale); };
  map_rows(y, normed, x.data, weight.data);
}

/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
inline void layer_norm_row(vector_view<float> y, vector_view<const float> x, vector_view<const float> weight,
                           vector_view<const float> bias, float eps) {
  const auto size = static_cast<float>(x.size);
  const f32x16 mean = f32x16::broadcast(sum_of(x) / size);
  const float squares = sum_of(x, [mean](f32x16 v) { return (v - mean) * (v - mean); });
  const f32x16 scale = f32x16::broadcast(1 / std::sqrt(squares / size + eps));
  const auto normed = [=](f32x16 v, f32x16 w, f32x16 b) { return fma((v - mean) * scale, w, b); };
  map_rows(y, normed, x.data, weight.data, bias.data);
}

/// Rotates every head of one row by the angles position * frequency, in the half-split layout: element i of a
/// head turns with element i + head_dim / 2. `cosines` and `sines` hold head_dim / 2 values.
inline void rotate_heads(vector_view<float> x, const float* cosines, const float* sines, index half) {
  for (float* head = x.data; head < x.data + x.size; head += 2 * half) {
    for (index i = 0; i < half; ++i) {
      const float a = head[i], b = head[i + half];
      head[i] = a * cosines[i] - b * sines[i];
      head[i + half] = b * cosines[i] + a * sines[i];
    }
  }
}

/// Rotates the rows first..last of x, row i as it stands at positions[i]. `scratch` has room for head_dim
/// numbers.
inline void rotate_rows(matrix_view<float> x, index_view<> positions, vector_view<const float> frequencies,
                        index first, index last, float* scratch) {
  const index half = frequencies.size;
  float *cosines = scratch, *sines = scratch + half;
  for (index i = first; i < last; ++i) {
    for (index j = 0; j < half; ++j) {
      const float angle = static_cast<float>(positions[i]) * frequencies[j];
      cosines[j] = std::cos(angle);
      sines[j] = std::sin(angle);
    }
    rotate_heads(x.row(i), cosines, sines, half);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

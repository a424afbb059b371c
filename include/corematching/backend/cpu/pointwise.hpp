// SPDX-License-Identifier: Apache-2.0
// Normalisations, nonlinearities and the rotary embedding on rows of activations.
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "corematching/backend/backend.hpp"
#include "corematching/core/config.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using eigen_row = Eigen::Map<Eigen::ArrayXf>;
using eigen_const_row = Eigen::Map<const Eigen::ArrayXf>;

inline float activated(activation act, float x) {
  switch (act) {
    case activation::silu: return x / (1 + std::exp(-x));
    case activation::quick_gelu: return x / (1 + std::exp(-1.702f * x));
    case activation::gelu_erf: return 0.5f * x * (1 + std::erf(x * 0.70710678f));
    case activation::gelu_tanh: return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

/// x = act(x), elementwise. The sigmoid forms use Eigen's vectorised exponential.
inline void activate_row(activation act, vector_view<float> x) {
  eigen_row row(x.data, x.size);
  switch (act) {
    case activation::silu: row = row / (1 + (-row).exp()); break;
    case activation::quick_gelu: row = row / (1 + (-1.702f * row).exp()); break;
    default:
      for (float& value : x) value = activated(act, value);
  }
}

/// y = weight * (x / sqrt(mean(x^2) + eps))
inline void rms_norm_row(vector_view<float> y, vector_view<const float> x, vector_view<const float> weight,
                         float eps) {
  const eigen_const_row row(x.data, x.size);
  const float scale = 1 / std::sqrt(row.square().mean() + eps);
  eigen_row(y.data, y.size) = eigen_const_row(weight.data, weight.size) * (row * scale);
}

/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
inline void layer_norm_row(vector_view<float> y, vector_view<const float> x, vector_view<const float> weight,
                           vector_view<const float> bias, float eps) {
  const eigen_const_row row(x.data, x.size);
  const float mean = row.mean();
  const float scale = 1 / std::sqrt((row - mean).square().mean() + eps);
  eigen_row(y.data, y.size) = (row - mean) * scale * eigen_const_row(weight.data, weight.size) +
                              eigen_const_row(bias.data, bias.size);
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

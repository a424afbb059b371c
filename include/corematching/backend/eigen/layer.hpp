// SPDX-License-Identifier: Apache-2.0
// What a transformer layer computes beside its products: nonlinearities, norms, rotary embedding, attention.
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/eigen/views.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::eigen {
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

/// x = act(x)
inline void activate(matrix_view<float> x, activation act) {
  mapped(x) = mapped(x).unaryExpr([act](float value) { return activated(act, value); });
}

/// y = x / sqrt(mean(x^2) + eps) * weight
inline void rms_norm(matrix_view<float> y, matrix_view<const float> x, vector_view<const float> weight,
                     float eps) {
  for (index i = 0; i < x.rows; ++i) {
    const auto row = mapped(x.row(i)).array();
    const float deviation = std::sqrt(row.square().mean() + eps);
    mapped(y).row(i) = row / deviation * mapped(weight).array();
  }
}

/// y = (x - mean) / sqrt(var + eps) * weight + bias
inline void layer_norm(matrix_view<float> y, matrix_view<const float> x, vector_view<const float> weight,
                       vector_view<const float> bias, float eps) {
  for (index i = 0; i < x.rows; ++i) {
    const auto row = mapped(x.row(i)).array();
    const float mean = row.mean();
    const float deviation = std::sqrt((row - mean).square().mean() + eps);
    mapped(y).row(i) = (row - mean) / deviation * mapped(weight).array() + mapped(bias).array();
  }
}

/// Turns every head of row i by the angles positions[i] * frequency: its element j together with element
/// j + head_dim / 2.
inline void rotate(matrix_view<float> x, index_view<> positions, vector_view<const float> frequencies) {
  const index half = frequencies.size;
  for (index i = 0; i < x.rows; ++i) {
    const row_vector angle = mapped(frequencies) * static_cast<float>(positions[i]);
    const Eigen::Array<float, 1, Eigen::Dynamic> cosine = angle.array().cos(), sine = angle.array().sin();
    for (index column = 0; column < x.cols; column += 2 * half) {
      auto a = mapped(x).row(i).segment(column, half).array();
      auto b = mapped(x).row(i).segment(column + half, half).array();
      const row_vector turned = a * cosine - b * sine;
      b = b * cosine + a * sine;
      a = turned;
    }
  }
}

/// softmax(q K^T * scale), for one query and the keys that it sees.
inline row_vector attention_weights(const auto& q, const auto& keys, float scale) {
  const row_vector scores = q * keys.transpose() * scale;
  const auto shares = (scores.array() - scores.maxCoeff<Eigen::PropagateNaN>()).exp().eval();
  return shares / shares.sum();
}

/// y = softmax(q K^T * scale) V, for each query and each of its heads.
inline void attend(matrix_view<float> y, matrix_view<const float> q, const matrix& keys, const matrix& values,
                   const attention_shape& shape) {
  const index d = shape.head_dim, heads_of_one = shape.heads / shape.kv_heads;
  for (index i = 0; i < q.rows; ++i) {
    const index first = shape.first_visible_key(i, q.rows, keys.rows());
    const index seen = shape.visible_keys(i, q.rows, keys.rows()) - first;
    for (index head = 0; head < shape.heads; ++head) {
      const index column = head / heads_of_one * d;
      const auto query = mapped(q).row(i).segment(head * d, d);
      const row_vector weights = attention_weights(query, keys.block(first, column, seen, d), shape.scale);
      mapped(y).row(i).segment(head * d, d) = weights * values.block(first, column, seen, d);
    }
  }
}

/// The weights that one query row gives to every key: one row for each of its heads.
inline void weigh_keys(matrix_view<float> weights, matrix_view<const float> q, const matrix& keys,
                       const attention_shape& shape) {
  const index d = shape.head_dim, heads_of_one = shape.heads / shape.kv_heads;
  for (index head = 0; head < shape.heads; ++head) {
    const auto query = mapped(q).row(0).segment(head * d, d);
    const auto seen = keys.middleCols(head / heads_of_one * d, d);
    mapped(weights).row(head) = attention_weights(query, seen, shape.scale);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::eigen

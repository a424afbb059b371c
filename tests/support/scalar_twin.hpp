// SPDX-License-Identifier: Apache-2.0
// The operations of the backend concept as their formulas, in binary64 and one element at a time: what every
// backend is held against. Nothing here is shared with the library but names of shapes.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "corematching/backend/backend.hpp"

namespace support {

using corematching::index;

/// Row-major, binary64.
struct real_matrix {
  index rows = 0;
  index cols = 0;
  std::vector<double> values;

  real_matrix() = default;
  real_matrix(index rows_, index cols_)
      : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_ * cols_)) {}

  double& operator()(index i, index j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(index i, index j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
};

/// Values in [-magnitude, magnitude] that binary32 holds exactly.
inline real_matrix random_matrix(index rows, index cols, std::mt19937& random, double magnitude = 1) {
  real_matrix m(rows, cols);
  std::uniform_real_distribution<float> uniform(-static_cast<float>(magnitude),
                                                static_cast<float>(magnitude));
  for (double& value : m.values) value = double{uniform(random)};
  return m;
}

// Tolerances. u is binary32's unit roundoff. A sum of k products x_i w_i in any order makes k roundings, each
// of at most u times a partial sum. With independent values, |x_i| <= 1 and |w_i| <= magnitude, the products
// have a root mean square of magnitude / 3, partial sums grow to sqrt(k) times that, and the k roundings add
// up like a random walk: u sqrt(k) sqrt(k) magnitude / 3. The bound is twelve times as much, for the largest
// of many elements; the constant 8 covers the lanes' final sum and the bias.

inline constexpr double unit_roundoff = 0x1p-24;

/// Of a dot product of `length`.
inline double dot_error(index length, double magnitude = 1) {
  return 4 * unit_roundoff * magnitude * static_cast<double>(length + 8);
}

/// What rounding one factor of each product to integers of `unit` (relative to the largest, half a unit off
/// at most) adds to a sum of `length` products with |x_i| <= 1, |w_i| <= magnitude: each error is like a
/// uniform random number, so the sum's standard deviation is unit / sqrt(12) magnitude / sqrt(3)
/// sqrt(length). Twelve times as much, for the largest of many elements.
inline double rounded_factor_error(index length, double unit, double magnitude = 1) {
  return 2 * unit * magnitude * std::sqrt(static_cast<double>(length));
}

/// Of act(g) * u where g and u are dot products with |g|, |u| < 2: |act'| <= 1.2 and |act| < 2, so 2 * 1.2 +
/// 2 dot errors, and a few roundings of the function itself.
inline double gated_error(index length, double magnitude) {
  return 5 * dot_error(length, magnitude) + 16 * unit_roundoff;
}

/// Of attention with |v| <= 1: an error e of the scores changes each weight by a factor exp(2 e) at most;
/// weights and their weighted sum make one rounding per key each.
inline double attention_error(index head_dim, index keys, double scale) {
  return 2 * dot_error(head_dim, scale) + 2 * unit_roundoff * static_cast<double>(keys + 16);
}

/// Of a normalised row of `length` with |weight|, |bias| <= 1 whose largest element is `largest`: the mean
/// and the sum of squares make one rounding per element.
inline double norm_error(index length, double largest) {
  return 2 * unit_roundoff * static_cast<double>(length + 16) * (largest + 1);
}

namespace twin {

using neurons = std::optional<std::vector<std::int32_t>>;

inline index row_of(const neurons& selection, index i) {
  return selection ? (*selection)[static_cast<std::size_t>(i)] : i;
}
inline index count_of(const neurons& selection, index all) {
  return selection ? std::ssize(*selection) : all;
}

/// x W^T + bias; `bias` [1, out] or empty.
inline real_matrix matmul(const real_matrix& x, const real_matrix& w, const real_matrix& bias = {}) {
  real_matrix y(x.rows, w.rows);
  for (index i = 0; i < x.rows; ++i)
    for (index j = 0; j < w.rows; ++j) {
      double sum = bias.cols > 0 ? bias(0, j) : 0;
      for (index k = 0; k < x.cols; ++k) sum += x(i, k) * w(j, k);
      y(i, j) = sum;
    }
  return y;
}

inline double activated(corematching::activation act, double x) {
  using enum corematching::activation;
  switch (act) {
    case silu: return x / (1 + std::exp(-x));
    case quick_gelu: return x / (1 + std::exp(-1.702 * x));
    case gelu_erf: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  }
  return NAN;
}

/// The selected rows, in their order.
inline real_matrix selected_rows(const real_matrix& w, const neurons& selection) {
  real_matrix rows(count_of(selection, w.rows), w.cols);
  for (index i = 0; i < rows.rows; ++i)
    for (index j = 0; j < w.cols; ++j) rows(i, j) = w(row_of(selection, i), j);
  return rows;
}

/// act(x Wgate^T) * (x Wup^T), one column for each selected neuron.
inline real_matrix gated_up(const real_matrix& x, const real_matrix& gate, const real_matrix& up,
                            corematching::activation act, const neurons& selection = {}) {
  const real_matrix g = matmul(x, selected_rows(gate, selection)),
                    u = matmul(x, selected_rows(up, selection));
  real_matrix y(g.rows, g.cols);
  for (index i = 0; i < y.rows; ++i)
    for (index j = 0; j < y.cols; ++j) y(i, j) = activated(act, g(i, j)) * u(i, j);
  return y;
}

/// y = sum over the selected neurons of x[:, place] w[neuron]
inline real_matrix weighted_rows(const real_matrix& x, const real_matrix& w, const neurons& selection = {}) {
  real_matrix y(x.rows, w.cols);
  for (index i = 0; i < x.rows; ++i)
    for (index place = 0; place < x.cols; ++place)
      for (index j = 0; j < w.cols; ++j) y(i, j) += x(i, place) * w(row_of(selection, place), j);
  return y;
}

inline real_matrix rms_norm(const real_matrix& x, const real_matrix& weight, double eps) {
  real_matrix y(x.rows, x.cols);
  for (index i = 0; i < x.rows; ++i) {
    double squares = 0;
    for (index j = 0; j < x.cols; ++j) squares += x(i, j) * x(i, j);
    const double root = std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (index j = 0; j < x.cols; ++j) y(i, j) = x(i, j) / root * weight(0, j);
  }
  return y;
}

inline real_matrix layer_norm(const real_matrix& x, const real_matrix& weight, const real_matrix& bias,
                              double eps) {
  real_matrix y(x.rows, x.cols);
  const auto size = static_cast<double>(x.cols);
  for (index i = 0; i < x.rows; ++i) {
    double mean = 0, variance = 0;
    for (index j = 0; j < x.cols; ++j) mean += x(i, j) / size;
    for (index j = 0; j < x.cols; ++j) variance += (x(i, j) - mean) * (x(i, j) - mean) / size;
    for (index j = 0; j < x.cols; ++j)
      y(i, j) = (x(i, j) - mean) / std::sqrt(variance + eps) * weight(0, j) + bias(0, j);
  }
  return y;
}

/// One row's heads turned by position * frequency; element i of a head with element i + head_dim / 2.
inline void rotate(double* row, index heads, double position, const std::vector<float>& frequencies) {
  const index half = std::ssize(frequencies);
  for (index head = 0; head < heads; ++head, row += 2 * half)
    for (index i = 0; i < half; ++i) {
      const double angle = position * double{frequencies[static_cast<std::size_t>(i)]};
      const double a = row[i], b = row[i + half];
      row[i] = a * std::cos(angle) - b * std::sin(angle);
      row[i + half] = a * std::sin(angle) + b * std::cos(angle);
    }
}

/// Weights of one head's query row over the keys that it sees; 0 for the others.
inline std::vector<double> attention_weights(const real_matrix& q, index query, index head,
                                             const real_matrix& k, const corematching::attention_shape& shape,
                                             const std::function<bool(index key)>& sees) {
  const index d = shape.head_dim, shared = head / (shape.heads / shape.kv_heads);
  std::vector<double> weights(static_cast<std::size_t>(k.rows), 0.0);
  double sum = 0;
  for (index key = 0; key < k.rows; ++key) {
    if (!sees(key)) continue;
    double score = 0;
    for (index j = 0; j < d; ++j) score += q(query, head * d + j) * k(key, shared * d + j);
    sum += weights[static_cast<std::size_t>(key)] = std::exp(score * double{shape.scale});
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// softmax(q k^T * scale) v; causal: query i of t sees the first keys - t + i + 1 keys, or the last `window`
/// of these.
inline real_matrix attention(const real_matrix& q, const real_matrix& k, const real_matrix& v,
                             const corematching::attention_shape& shape) {
  const index d = shape.head_dim;
  real_matrix y(q.rows, q.cols);
  for (index i = 0; i < q.rows; ++i)
    for (index head = 0; head < shape.heads; ++head) {
      const index last = k.rows - q.rows + i;
      const auto sees = [&](index key) {
        return !shape.causal || (key <= last && (shape.window == 0 || key > last - shape.window));
      };
      const std::vector<double> weights = attention_weights(q, i, head, k, shape, sees);
      for (index key = 0; key < k.rows; ++key)
        for (index j = 0; j < d; ++j)
          y(i, head * d + j) +=
              weights[static_cast<std::size_t>(key)] * v(key, head / (shape.heads / shape.kv_heads) * d + j);
    }
  return y;
}

}  // namespace twin
}  // namespace support

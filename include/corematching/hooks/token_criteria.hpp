// SPDX-License-Identifier: Apache-2.0
// Scores of image tokens by attention, for comparison: read from it in host memory, at matching layers only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "corematching/nn/hook.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching::detail {

/// Attention weights of the last query row, [heads, keys], in host memory; 0 for keys that it does not see.
template <selecting_backend B>
std::vector<float> last_row_attention(B& be, const attention_inputs<B>& in) {
  const index keys = in.keys.rows, hidden = in.shape.first_visible_key(0, 1, keys), seen = keys - hidden;
  matrix<B, float> weights(be, in.shape.heads, seen);
  be.attention_probabilities(weights.view(), in.queries.middle_rows(in.queries.rows - 1, 1),
                             in.keys.middle_rows(hidden, seen), in.shape);
  std::vector<float> host;
  download_values(be, weights.view(), host);
  std::vector<float> all(static_cast<std::size_t>(in.shape.heads * keys), 0.0f);
  for (index head = 0; head < in.shape.heads; ++head)
    std::copy_n(host.begin() + head * seen, seen, all.begin() + head * keys + hidden);
  return all;
}

/// FastV: mean over heads of the attention that the last token pays to each of the last `rows` keys.
template <selecting_backend B>
std::vector<double> attention_scores(B& be, const attention_inputs<B>& in, index rows) {
  const std::vector<float> weights = last_row_attention(be, in);
  const index keys = in.keys.rows;
  std::vector<double> scores(static_cast<std::size_t>(rows), 0.0);
  for (index head = 0; head < in.shape.heads; ++head)
    for (index i = 0; i < rows; ++i)
      scores[static_cast<std::size_t>(i)] += weights[static_cast<std::size_t>(head * keys + keys - rows + i)];
  for (double& score : scores) score /= static_cast<double>(in.shape.heads);
  return scores;
}

/// With u_i the concatenation over heads of α_{h,i} v_{h,i} and o = sum_i u_i: <u_i, o> / |o| for each of the
/// last `rows` keys.
template <selecting_backend B>
std::vector<double> projection_scores(B& be, const attention_inputs<B>& in, index rows) {
  const std::vector<float> weights = last_row_attention(be, in);
  matrix<B> widened(be, in.values.rows, in.values.cols);
  be.load_rows(widened.view(), in.values);
  std::vector<float> values;
  download_values(be, widened.view(), values);
  const index keys = in.keys.rows, d = in.shape.head_dim, group = in.shape.heads / in.shape.kv_heads;
  const auto weighted_value = [&](index head, index key, index j) {
    return static_cast<double>(weights[static_cast<std::size_t>(head * keys + key)]) *
           static_cast<double>(
               values[static_cast<std::size_t>(key * in.shape.kv_size() + head / group * d + j)]);
  };
  std::vector<double> output(static_cast<std::size_t>(in.shape.query_size()), 0.0);
  for (index key = 0; key < keys; ++key)
    for (index c = 0; c < in.shape.query_size(); ++c)
      output[static_cast<std::size_t>(c)] += weighted_value(c / d, key, c % d);
  double norm = 0;
  for (const double value : output) norm += value * value;
  norm = std::sqrt(norm);

  std::vector<double> scores(static_cast<std::size_t>(rows), 0.0);
  for (index i = 0; i < rows; ++i) {
    for (index c = 0; c < in.shape.query_size(); ++c)
      scores[static_cast<std::size_t>(i)] +=
          weighted_value(c / d, keys - rows + i, c % d) * output[static_cast<std::size_t>(c)];
    if (norm > 0) scores[static_cast<std::size_t>(i)] /= norm;  // no output to project on otherwise
  }
  return scores;
}

}  // namespace corematching::detail

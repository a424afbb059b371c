// SPDX-License-Identifier: Apache-2.0
// The definitions of docs/algorithm.md, word for word: stable sorts, sets and floating-point comparisons, no
// cleverness. The selectors must agree with these exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/core_tokens.hpp"

namespace corematching::select::slow {

using indices = std::vector<std::int32_t>;

/// Positions by descending value; ties to the lower position.
template <class Values>
indices by_rank(const Values& values) {
  indices order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] > values[b]; });
  return order;
}

inline indices first_sorted(indices order, index size) {
  order.resize(std::min<index>(size, std::ssize(order)));
  std::sort(order.begin(), order.end());
  return order;
}

/// Γ(x)
template <class T>
indices activated(const T* row, index neurons) {
  indices result;
  for (index n = 0; n < neurons; ++n) {
    if (to_float(row[n]) > 0.0f) result.push_back(static_cast<std::int32_t>(n));
  }
  return result;
}

/// The k largest positive activations of a token.
template <class T>
indices largest_positive(const T* row, index neurons, index k) {
  std::vector<float> values(neurons);
  std::transform(row, row + neurons, values.begin(), [](T a) { return to_float(a); });
  indices order = by_rank(values);
  std::erase_if(order, [&](std::int32_t n) { return !(values[n] > 0.0f); });
  return first_sorted(order, k);
}

/// f(n) of the rows [first, last) with rule per_token.
template <class Matrix>
std::vector<std::int32_t> frequencies(const Matrix& activation, double rho, index first, index last) {
  std::vector<std::int32_t> f(activation.neurons);
  for (index x = first; x < last; ++x) {
    const auto size = static_cast<double>(activated(activation.row(x), activation.neurons).size());
    const index k = size == 0 ? 0 : std::max<index>(1, static_cast<index>(std::floor(rho * size)));
    for (const std::int32_t n : largest_positive(activation.row(x), activation.neurons, k)) ++f[n];
  }
  return f;
}

inline indices core_neurons(const std::vector<std::int32_t>& frequency, double beta) {
  indices order = by_rank(frequency);
  order.resize(static_cast<std::size_t>(std::floor(beta * static_cast<double>(frequency.size()))));
  std::erase_if(order, [&](std::int32_t n) { return frequency[n] == 0; });
  std::sort(order.begin(), order.end());
  return order;
}

/// The geometric distance itself, of (i, m_i) from the line through (0, m_0) and (T-1, m_{T-1}).
template <class Score>
long double distance(const std::vector<Score>& descending, std::size_t i) {
  const auto width = static_cast<long double>(descending.size() - 1);
  const long double height = static_cast<long double>(descending.back()) - descending.front();
  const long double rise = static_cast<long double>(descending[i]) - descending.front();
  return std::fabs(rise * width - static_cast<long double>(i) * height) / std::hypot(width, height);
}

template <class Score>
std::optional<Score> elbow_threshold(std::vector<Score> scores) {
  std::sort(scores.rbegin(), scores.rend());
  if (scores.size() < 3 || scores.front() == scores.back()) return std::nullopt;
  std::size_t farthest = 0;
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (distance(scores, i) > distance(scores, farthest)) farthest = i;
  }
  return scores[farthest];
}

template <class Score>
indices core_tokens(const std::vector<Score>& scores, const keep_options& options) {
  index size = 0;
  if (options.rule == keep_rule::top_k) size = options.count;
  if (options.rule == keep_rule::ratio) {
    size = std::max<index>(
        1, static_cast<index>(std::floor(options.ratio * static_cast<double>(scores.size()))));
  }
  if (options.rule == keep_rule::max_distance) {
    const auto threshold = elbow_threshold(scores);
    size = std::count_if(scores.begin(), scores.end(), [&](Score m) {
      return !threshold || m > *threshold || (m == *threshold && !options.strict);
    });
  }
  size = std::max(size, options.min_tokens);
  if (options.max_tokens) size = std::min(size, *options.max_tokens);
  return first_sorted(by_rank(scores), size);
}

}  // namespace corematching::select::slow

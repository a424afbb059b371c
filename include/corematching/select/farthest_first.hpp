// SPDX-License-Identifier: Apache-2.0
// Tokens that differ from each other, found from their features alone: the first one is nearest to the mean
// of all, and each further one is the token whose likeness to the nearest of those before is least
// (farthest-first traversal; Gonzalez 1985). What is left out is a duplicate of something that stays.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Cosines of the angles between features, from their products; 0 where a feature is zero.
class feature_cosines {
 public:
  explicit feature_cosines(matrix_view<const float> products) : products_(products) {
    for (index i = 0; i < products.rows; ++i) {
      const float square = products.row(i)[i];
      require(magnitude_key(square) < infinite_key<float>, "features of token ", i,
              " are NaN or infinite, or their squares are");
      inverse_.push_back(square > 0 ? 1 / std::sqrt(static_cast<double>(square)) : 0);
    }
  }

  double between(index i, index j) const {
    return static_cast<double>(products_.row(i)[j]) * inverse_[static_cast<std::size_t>(i)] *
           inverse_[static_cast<std::size_t>(j)];
  }
  /// With the mean of all, but for a factor that is the same for every token.
  double with_mean(index i) const {
    double sum = 0;
    for (index j = 0; j < products_.cols; ++j) sum += static_cast<double>(products_.row(i)[j]);
    return sum * inverse_[static_cast<std::size_t>(i)];
  }

 private:
  matrix_view<const float> products_;
  std::vector<double> inverse_;  // of the features' lengths
};

}  // namespace detail

/// `count` tokens, or all where there are fewer; ascending. `products` [tokens, tokens] holds the products of
/// their features, x_i · x_j. Ties go to the lower position. Throws where a token's features are not finite.
inline std::vector<std::int32_t> farthest_first(matrix_view<const float> products, index count) {
  const index tokens = products.rows, wanted = std::min(count, tokens);
  const detail::feature_cosines cosines(products);
  std::vector<double> nearest(static_cast<std::size_t>(tokens));  // cosine with the chosen one most alike
  for (index i = 0; i < tokens; ++i) nearest[static_cast<std::size_t>(i)] = -cosines.with_mean(i);

  std::vector<std::int32_t> chosen;
  std::vector<bool> is_chosen(nearest.size());
  while (std::ssize(chosen) < wanted) {
    index next = -1;
    for (index i = 0; i < tokens; ++i)
      if (!is_chosen[static_cast<std::size_t>(i)] &&
          (next < 0 || nearest[static_cast<std::size_t>(i)] < nearest[static_cast<std::size_t>(next)]))
        next = i;
    if (chosen.empty()) std::ranges::fill(nearest, -2.0);  // below every cosine
    chosen.push_back(static_cast<std::int32_t>(next));
    is_chosen[static_cast<std::size_t>(next)] = true;
    for (index i = 0; i < tokens; ++i)
      nearest[static_cast<std::size_t>(i)] =
          std::max(nearest[static_cast<std::size_t>(i)], cosines.between(next, i));
  }
  std::ranges::sort(chosen);
  return chosen;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/top_k.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "support/error_text.hpp"

namespace corematching::select {
namespace {

using places = std::vector<std::int32_t>;

/// By sorting all places.
places slowly(const std::vector<float>& x, const std::vector<float>& weights, index k) {
  places all(x.size());
  std::iota(all.begin(), all.end(), 0);
  const auto score = [&](std::int32_t n) {
    const auto i = static_cast<std::size_t>(n);
    const float value = std::abs(x[i]) * (weights.empty() ? 1.0f : weights[i]);
    return std::isnan(value) ? std::numeric_limits<double>::infinity() : double{value};
  };
  std::ranges::stable_sort(all, [&](std::int32_t a, std::int32_t b) { return score(a) > score(b); });
  all.resize(static_cast<std::size_t>(k));
  std::ranges::sort(all);
  return all;
}

places chosen(const std::vector<float>& x, const std::vector<float>& weights, index k) {
  places result(static_cast<std::size_t>(k), -1);
  top_k({result.data(), k}, vector_view<const float>{x.data(), std::ssize(x)},
        vector_view<const float>{weights.data(), std::ssize(weights)});
  return result;
}

TEST(top_k, is_what_sorting_gives) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const std::size_t size : {1u, 7u, 64u, 300u, 2049u, 11008u})
    for (const bool weighted : {false, true})
      for (const int levels : {0, 2, 5}) {  // 0: hardly any ties
        std::vector<float> x(size), weights(weighted ? size : 0);
        for (float& value : x)
          value =
              levels == 0 ? normal(random) : static_cast<float>(static_cast<int>(random() % 9) % levels - 1);
        for (float& weight : weights)
          weight = levels == 0 ? std::abs(normal(random)) : static_cast<float>(random() % 2);
        for (const double share : {0.0, 0.1, 0.4, 0.99, 1.0}) {
          const auto k = static_cast<index>(std::ceil(share * static_cast<double>(size)));
          ASSERT_EQ(chosen(x, weights, k), slowly(x, weights, k))
              << size << ", " << weighted << ", " << levels << ", " << k;
        }
      }
}

TEST(top_k, takes_numbers_that_are_none_for_the_largest) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x{1, -nan, -infinity, 3, nan, 0};
  const float largest_nan = std::bit_cast<float>(0x7fffffff);  // what a GPU's arithmetic leaves
  EXPECT_EQ(chosen({1, nan, largest_nan, 3, nan, 0}, {}, 2), (places{1, 2}));
  EXPECT_EQ(chosen({largest_nan, largest_nan, largest_nan}, {}, 2), (places{0, 1}));
  EXPECT_EQ(chosen(x, {}, 2), (places{1, 4}));
  EXPECT_EQ(chosen(x, {}, 4), (places{1, 2, 3, 4}));
  EXPECT_EQ(chosen(x, {1, 1, 0, 1, 1, 1}, 2), (places{1, 2})) << "infinity times zero";
}

TEST(top_k, takes_the_first_where_all_are_zero) {
  EXPECT_EQ(chosen({0, -0.0f, 0, 0}, {}, 3), (places{0, 1, 2}));
  EXPECT_EQ(chosen({0, 2, 0, -0.0f, 1}, {}, 4), (places{0, 1, 2, 4}));
  EXPECT_EQ(chosen({5, 2, 3}, {0, 0, 1}, 2), (places{0, 2}));
}

TEST(top_k, refuses_more_than_there_are) {
  support::expect_parts(support::error_text([] { chosen({1, 2}, {}, 3); }), "3", "2");
}

}  // namespace
}  // namespace corematching::select

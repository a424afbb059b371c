// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/farthest_first.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

using slow::indices;
using features = std::vector<std::vector<float>>;

float product(const std::vector<float>& a, const std::vector<float>& b) {
  float sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

indices chosen(const features& x, index count) {
  const index tokens = std::ssize(x), stride = tokens + 3;
  std::vector<float> products(static_cast<std::size_t>(tokens * stride), std::nanf(""));
  for (index i = 0; i < tokens; ++i)
    for (index j = 0; j < tokens; ++j)
      products[static_cast<std::size_t>(i * stride + j)] =
          product(x[static_cast<std::size_t>(i)], x[static_cast<std::size_t>(j)]);
  return farthest_first({products.data(), tokens, tokens, stride}, count);
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  const double lengths = std::sqrt(double{product(a, a)} * double{product(b, b)});
  return lengths > 0 ? double{product(a, b)} / lengths : 0;
}

/// The definition, from the features themselves.
indices defined(const features& x, index count) {
  std::vector<float> sum(x.front().size());
  for (const auto& token : x)
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += token[j];
  indices order;
  while (std::ssize(order) < std::min<index>(count, std::ssize(x))) {
    std::int32_t best = -1;
    double least = std::numeric_limits<double>::infinity();
    for (std::int32_t i = 0; i < std::ssize(x); ++i) {
      if (std::ranges::count(order, i) > 0) continue;
      double likeness = order.empty() ? -cosine(x[static_cast<std::size_t>(i)], sum) : -2;
      for (const std::int32_t before : order)
        likeness =
            std::max(likeness, cosine(x[static_cast<std::size_t>(i)], x[static_cast<std::size_t>(before)]));
      if (likeness < least) {
        least = likeness;
        best = i;
      }
    }
    order.push_back(best);
  }
  std::ranges::sort(order);
  return order;
}

TEST(farthest_first, is_what_the_definition_says) {
  std::mt19937 random(81);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 100; ++round) {
    features x(static_cast<std::size_t>(1 + test::below(20, random)));
    for (auto& token : x)
      for (int j = 0; j < 6; ++j) token.push_back(normal(random));
    const index count = 1 + test::below(24, random);
    ASSERT_EQ(chosen(x, count), defined(x, count)) << x.size() << " tokens, " << count << " wanted";
  }
}

TEST(farthest_first, takes_one_of_each_before_a_second_of_any) {
  const features x{{1, 0, 0}, {2, 0, 0}, {0, 1, 0}, {1, 0, 0}, {0, 0, 5}, {0, 3, 0}};
  EXPECT_EQ(chosen(x, 3).size(), 3u);
  const indices three = chosen(x, 3);
  for (const indices& alike : {indices{0, 1, 3}, indices{2, 5}, indices{4}})
    EXPECT_EQ(std::ranges::count_if(alike, [&](auto i) { return std::ranges::count(three, i) > 0; }), 1);
}

TEST(farthest_first, gives_ties_to_the_lower_position) {
  const features x(5, {1, 1});
  EXPECT_EQ(chosen(x, 2), (indices{0, 1}));
  EXPECT_EQ(chosen(x, 9), (indices{0, 1, 2, 3, 4}));
}

TEST(farthest_first, takes_a_zero_for_like_nothing) {
  EXPECT_EQ(chosen({{1, 0.1f}, {1, 0}, {0, 0}, {1, 0.2f}}, 2), (indices{0, 2}));
  EXPECT_EQ(chosen({{0, 0}, {0, 0}}, 1), indices{0});
}

TEST(farthest_first, names_the_token_whose_features_are_not_finite) {
  EXPECT_EQ(test::message_of([] {
              chosen({{1, 1}, {1, std::nanf("")}, {0, 1}}, 1);
            }),
            "features of token 1 are NaN or infinite, or their squares are");
  EXPECT_EQ(test::message_of([] {
              chosen({{1, 1}, {1, 2}, {1e30f, 1}}, 1);
            }),
            "features of token 2 are NaN or infinite, or their squares are");
}

}  // namespace
}  // namespace corematching::select

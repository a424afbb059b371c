// SPDX-License-Identifier: Apache-2.0
// Functions of sixteen lanes on rows of every length around whole vectors.
#include "corematching/backend/cpu/simd/rows.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

namespace corematching::cpu {
namespace {

constexpr index longest = 150;

/// Small integers, whose sums are exact in any order.
std::vector<float> numbers(index size) {
  std::vector<float> x;
  for (index i = 0; i < size; ++i) x.push_back(static_cast<float>((i * 7 + size * 5) % 23 - 11));
  return x;
}

vector_view<const float> view_of(const std::vector<float>& x) {
  return {x.data(), std::ssize(x)};
}

TEST(rows, are_mapped_to_their_end_and_no_further) {
  for (index size = 0; size <= longest; ++size) {
    const std::vector<float> a = numbers(size), b(a.rbegin(), a.rend());
    std::vector<float> y(static_cast<std::size_t>(size) + 16, 99.0f), expected = y;
    std::transform(a.begin(), a.end(), b.begin(), expected.begin(), std::minus());
    map_rows({y.data(), size}, std::minus<f32x16>(), a.data(), b.data());
    EXPECT_EQ(y, expected) << size;
  }
}

TEST(rows, are_mapped_in_place) {
  for (index size = 0; size <= longest; ++size) {
    std::vector<float> x = numbers(size), expected = x;
    for (float& value : expected) value *= value;
    map_rows({x.data(), size}, std::multiplies<f32x16>(), x.data(), x.data());
    EXPECT_EQ(x, expected) << size;
  }
}

TEST(rows, are_summed_without_what_a_function_makes_of_no_element) {
  for (index size = 0; size <= longest; ++size) {
    const std::vector<float> x = numbers(size);
    const float sum = std::accumulate(x.begin(), x.end(), 0.0f);
    EXPECT_EQ(sum_of(view_of(x)), sum) << size;
    const auto more_by_one = [](f32x16 v) { return v + f32x16::broadcast(1); };
    EXPECT_EQ(sum_of(view_of(x), more_by_one), sum + static_cast<float>(size)) << size;
  }
}

TEST(rows, have_their_largest_element_anywhere) {
  for (index size = 1; size <= longest; ++size)
    for (index place = 0; place < size; ++place) {
      std::vector<float> x(static_cast<std::size_t>(size), -3.0f);
      x[static_cast<std::size_t>(place)] = -2.0f;
      EXPECT_EQ(largest_in(view_of(x)), -2.0f) << place << " of " << size;
    }
}

}  // namespace
}  // namespace corematching::cpu

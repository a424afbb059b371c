// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/max_distance.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

template <class Score>
std::optional<Score> elbow_of(std::vector<Score> scores) {
  std::sort(scores.rbegin(), scores.rend());
  return elbow_threshold(vector_view<const Score>{scores.data(), std::ssize(scores)});
}

TEST(max_distance, fewer_than_three_scores_have_no_elbow) {
  EXPECT_EQ(elbow_of<std::int32_t>({}), std::nullopt);
  EXPECT_EQ(elbow_of<std::int32_t>({5}), std::nullopt);
  EXPECT_EQ(elbow_of<std::int32_t>({5, 1}), std::nullopt);
  EXPECT_NE(elbow_of<std::int32_t>({5, 1, 1}), std::nullopt);
}

TEST(max_distance, equal_scores_have_no_elbow) {
  EXPECT_EQ(elbow_of<std::int32_t>({4, 4, 4, 4}), std::nullopt);
  EXPECT_EQ(elbow_of<double>({0.0, -0.0, 0.0}), std::nullopt);
}

TEST(max_distance, finds_the_corner_of_an_l) {
  EXPECT_EQ(elbow_of<std::int32_t>({100, 90, 10, 9, 8, 7, 6, 5}), 10);
}

TEST(max_distance, finds_a_corner_above_the_chord) {
  EXPECT_EQ(elbow_of<std::int32_t>({100, 99, 98, 97, 96, 95, 10, 0}), 95);
}

TEST(max_distance, scores_on_a_line_give_the_first) {
  std::vector<std::int32_t> line(50);
  for (int i = 0; i < 50; ++i) line[i] = 7 * i - 20;
  EXPECT_EQ(elbow_of(line), 7 * 49 - 20);
}

TEST(max_distance, of_equally_far_points_the_first_counts) {
  // Offsets 0, 6, 0, 6, 0 from the chord that falls by 3 a step: one point below it, one above.
  EXPECT_EQ(elbow_of<std::int32_t>({12, 6, 6, 6, 0}), 6);
  EXPECT_EQ(elbow_of<std::int32_t>({12, 8, 6, 4, 0}), 8);
}

TEST(max_distance, is_the_geometric_distance_for_random_integers) {
  std::mt19937 random(21);
  for (int round = 0; round < 500; ++round) {
    const std::int32_t levels = 1 + test::below(round % 2 == 0 ? 10 : 5000, random);
    std::vector<std::int32_t> scores(1 + test::below(700, random));
    for (auto& m : scores) m = test::below(levels, random);
    ASSERT_EQ(elbow_of(scores), slow::elbow_threshold(scores)) << scores.size() << " scores";
  }
}

TEST(max_distance, is_the_geometric_distance_for_random_reals) {
  std::mt19937 random(22);
  std::gamma_distribution<float> skewed(0.5f, 0.01f);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> scores(1 + test::below(700, random));
    for (auto& m : scores) m = skewed(random);
    ASSERT_EQ(elbow_of(scores), slow::elbow_threshold(scores)) << scores.size() << " scores";
  }
}

TEST(max_distance, the_whole_range_of_integers_does_not_overflow) {
  constexpr std::int32_t low = std::numeric_limits<std::int32_t>::min(),
                         high = std::numeric_limits<std::int32_t>::max();
  std::vector<std::int32_t> scores(3000, low);
  scores[0] = high;
  EXPECT_EQ(elbow_of(scores), low);
  scores.assign(3000, high);
  scores[0] = low;
  EXPECT_EQ(elbow_of(scores), high);
  EXPECT_EQ(elbow_of(scores), slow::elbow_threshold(scores));
}

TEST(max_distance, adding_a_constant_or_a_factor_moves_the_threshold_along) {
  std::mt19937 random(23);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int32_t> scores(3 + test::below(100, random));
    for (auto& m : scores) m = test::below(40, random);
    const auto before = elbow_of(scores);
    for (auto& m : scores) m = 17 * m + 1000;
    const auto after = elbow_of(scores);
    ASSERT_EQ(before.has_value(), after.has_value());
    ASSERT_EQ(after.value_or(0), before ? 17 * *before + 1000 : 0);
  }
}

}  // namespace
}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/score_profile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

TEST(score_profile, shows_the_elbow_below_the_chord_of_a_hollow_curve) {
  const auto profile = profile_of(std::vector<std::int32_t>{0, 1, 100, 2, 3, 4});
  ASSERT_TRUE(profile);
  EXPECT_EQ(profile->first, 100);
  EXPECT_EQ(profile->last, 0);
  EXPECT_EQ(profile->elbow, 1);
  EXPECT_EQ(profile->below.rank, 1);
  EXPECT_EQ(profile->below.score, 4);
  EXPECT_DOUBLE_EQ(profile->below.distance, 0.76);  // the chord is at 80 there
  EXPECT_EQ(profile->above.rank, 0);
  EXPECT_EQ(profile->above.distance, 0);
}

TEST(score_profile, shows_both_bends_of_an_s) {
  // The chord falls by 10 a rank: 90 lies 40 above it, and 20 as far below it as 10 does.
  const std::vector<std::int64_t> scores{100, 99, 98, 95, 93, 90, 20, 10, 4, 2, 0};
  const auto profile = profile_of(scores);
  ASSERT_TRUE(profile);
  EXPECT_EQ(profile->above.rank, 5);
  EXPECT_DOUBLE_EQ(profile->above.distance, 0.4);
  EXPECT_EQ(profile->below.rank, 6);
  EXPECT_DOUBLE_EQ(profile->below.distance, 0.2);
  EXPECT_EQ(profile->elbow, 5) << "the farther one";
}

TEST(score_profile, has_the_threshold_at_its_elbow) {
  std::mt19937 random(71);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::int32_t> scores(1 + test::below(60, random));
    for (auto& m : scores) m = test::below(40, random);
    const auto profile = profile_of(scores);
    const auto threshold = slow::elbow_threshold(scores);
    ASSERT_TRUE(profile);
    ASSERT_EQ(profile->elbow.has_value(), threshold.has_value());
    if (!threshold) continue;
    std::sort(scores.rbegin(), scores.rend());
    ASSERT_EQ(scores[static_cast<std::size_t>(*profile->elbow)], *threshold);
    ASSERT_TRUE(*profile->elbow == profile->above.rank || *profile->elbow == profile->below.rank);
  }
}

TEST(score_profile, has_no_elbow_where_scores_are_equal_or_few) {
  EXPECT_FALSE(profile_of(std::vector<double>{}));
  for (const std::vector<double>& scores : {std::vector<double>{3}, {3, 1}, {2, 2, 2, 2}}) {
    const auto profile = profile_of(scores);
    ASSERT_TRUE(profile);
    EXPECT_FALSE(profile->elbow);
    EXPECT_EQ(profile->first, scores.front());
    EXPECT_EQ(profile->last, scores.back());
  }
}

}  // namespace
}  // namespace corematching::select

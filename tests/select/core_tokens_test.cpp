// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/core_tokens.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

using slow::indices;

template <class Score>
indices kept(const std::vector<Score>& scores, const keep_options& options = {}) {
  return core_tokens(vector_view<const Score>{scores.data(), std::ssize(scores)}, options);
}

indices first(index size) {
  indices all(size);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

keep_options random_options(std::mt19937& random) {
  keep_options options;
  options.rule = static_cast<keep_rule>(test::below(3, random));
  options.strict = test::below(2, random) == 0;
  options.count = 1 + test::below(40, random);
  options.ratio = (1 + test::below(100, random)) / 100.0;
  if (test::below(3, random) == 0) options.min_tokens = 1 + test::below(20, random);
  if (test::below(3, random) == 0) options.max_tokens = options.min_tokens + test::below(20, random);
  return options;
}

template <class Score>
class core_tokens_by : public testing::Test {
 protected:
  static std::vector<Score> random_scores(std::mt19937& random) {
    std::vector<Score> scores(test::below(120, random));
    const std::int32_t levels = 1 + test::below(30, random);
    for (auto& m : scores) m = static_cast<Score>(test::below(levels, random));
    return scores;
  }
};
using score_types = testing::Types<std::int32_t, std::int64_t, float, double>;
TYPED_TEST_SUITE(core_tokens_by, score_types);

TYPED_TEST(core_tokens_by, any_rule_keeps_what_sorting_and_measuring_gives) {
  std::mt19937 random(41);
  for (int round = 0; round < 1000; ++round) {
    const auto scores = this->random_scores(random);
    const keep_options options = random_options(random);
    ASSERT_EQ(kept(scores, options), slow::core_tokens(scores, options)) << scores.size() << " scores";
  }
}

TYPED_TEST(core_tokens_by, the_kept_set_is_never_empty_and_ascends) {
  std::mt19937 random(42);
  for (int round = 0; round < 500; ++round) {
    const auto scores = this->random_scores(random);
    const indices rows = kept(scores, random_options(random));
    ASSERT_EQ(rows.empty(), scores.empty());
    ASSERT_TRUE(std::is_sorted(rows.begin(), rows.end()));
    ASSERT_EQ(std::adjacent_find(rows.begin(), rows.end()), rows.end());
  }
}

TYPED_TEST(core_tokens_by, permuted_tokens_give_the_permuted_set_where_no_two_scores_are_equal) {
  std::mt19937 random(43);
  for (int round = 0; round < 200; ++round) {
    std::vector<TypeParam> scores(1 + test::below(60, random));
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<TypeParam>(i * i);
    std::shuffle(scores.begin(), scores.end(), random);
    const std::vector<TypeParam> reversed(scores.rbegin(), scores.rend());
    const keep_options options = random_options(random);
    indices mirrored = kept(reversed, options);
    for (auto& row : mirrored) row = static_cast<std::int32_t>(scores.size()) - 1 - row;
    std::reverse(mirrored.begin(), mirrored.end());
    ASSERT_EQ(mirrored, kept(scores, options));
  }
}

TYPED_TEST(core_tokens_by, equal_scores_keep_every_token) {
  for (const index tokens : {1, 2, 3, 50}) {
    const std::vector<TypeParam> scores(tokens, TypeParam{7});
    for (const bool strict : {false, true}) EXPECT_EQ(kept(scores, {.strict = strict}), first(tokens));
    EXPECT_EQ(kept(scores, {.max_tokens = 1}), first(1));
  }
}

TYPED_TEST(core_tokens_by, fewer_than_three_tokens_are_all_kept) {
  for (const bool strict : {false, true}) {
    EXPECT_EQ(kept<TypeParam>({}, {.strict = strict}), indices{});
    EXPECT_EQ(kept<TypeParam>({3}, {.strict = strict}), first(1));
    EXPECT_EQ(kept<TypeParam>({1, 9}, {.strict = strict}), first(2));
  }
  EXPECT_EQ(kept<TypeParam>({1, 9}, {.max_tokens = 1}), indices{1});
}

TYPED_TEST(core_tokens_by, the_elbow_itself_stays_unless_strict) {
  const std::vector<TypeParam> scores = {5, 90, 10, 100, 8, 7, 10, 6};
  EXPECT_EQ(kept(scores), (indices{1, 2, 3, 6}));
  EXPECT_EQ(kept(scores, {.strict = true}), (indices{1, 3}));
}

TYPED_TEST(core_tokens_by, linear_scores_keep_the_largest) {
  std::vector<TypeParam> scores(20);
  std::iota(scores.begin(), scores.end(), TypeParam{3});
  EXPECT_EQ(kept(scores), indices{19});
}

TYPED_TEST(core_tokens_by, strict_falls_back_on_the_best_token_where_nothing_lies_above_the_elbow) {
  std::vector<TypeParam> scores(20);
  std::iota(scores.begin(), scores.end(), TypeParam{3});
  EXPECT_EQ(kept(scores, {.strict = true}), indices{19});
  EXPECT_EQ(kept<TypeParam>({0, 5, 5, 5, 5}, {.strict = true}), indices{1});
  EXPECT_EQ(kept<TypeParam>({0, 5, 5, 5, 5}, {.strict = true, .min_tokens = 3}), (indices{1, 2, 3}));
}

TYPED_TEST(core_tokens_by, min_and_max_tokens_bound_the_set_by_rank) {
  const std::vector<TypeParam> scores = {1, 50, 2, 50, 3, 2, 40};
  EXPECT_EQ(kept(scores, {.rule = keep_rule::top_k, .count = 1, .min_tokens = 4}), (indices{1, 3, 4, 6}));
  EXPECT_EQ(kept(scores, {.rule = keep_rule::top_k, .count = 6, .max_tokens = 1}), indices{1});
  EXPECT_EQ(kept(scores, {.min_tokens = 1000}), first(7));
  EXPECT_EQ(kept(scores, {.rule = keep_rule::top_k, .count = 1000}), first(7));
}

TYPED_TEST(core_tokens_by, ties_go_to_the_lower_position) {
  EXPECT_EQ(kept<TypeParam>({4, 9, 4, 4, 9}, {.rule = keep_rule::top_k, .count = 3}), (indices{0, 1, 4}));
}

TYPED_TEST(core_tokens_by, ratio_keeps_the_floor_of_the_share_but_at_least_one) {
  std::vector<TypeParam> scores(100, TypeParam{1});
  EXPECT_EQ(kept(scores, {.rule = keep_rule::ratio, .ratio = 0.29}), first(28));  // 0.29 · 100 < 29 in double
  EXPECT_EQ(kept(scores, {.rule = keep_rule::ratio, .ratio = 0.001}), first(1));
  EXPECT_EQ(kept(scores, {.rule = keep_rule::ratio, .ratio = 1.0}), first(100));
}

TEST(core_tokens, nan_is_an_error_for_every_rule_and_infinity_for_distances) {
  const std::vector<float> nan = {1.0f, NAN, 3.0f};
  const std::vector<double> infinite = {1.0, 2.0, INFINITY};
  for (const keep_rule rule : {keep_rule::max_distance, keep_rule::top_k, keep_rule::ratio}) {
    EXPECT_EQ(test::message_of([&] { kept(nan, {.rule = rule}); }), "score of token 1 is NaN");
  }
  EXPECT_EQ(test::message_of([&] { kept(infinite); }),
            "score of token 2 is infinite, which max_distance cannot measure");
  EXPECT_EQ(kept(infinite, {.rule = keep_rule::top_k}), indices{2});
}

TEST(core_tokens, scores_of_64_bits_are_measured_exactly_or_refused) {
  // In binary64 all of them are 2^59.
  constexpr std::int64_t high = std::int64_t{1} << 59;
  EXPECT_EQ(kept(std::vector<std::int64_t>{high + 4, high + 1, high, high}), (indices{0, 1}));
  EXPECT_EQ(test::message_of([&] {
              kept(std::vector<std::int64_t>{high * 8 - 1, 0, 3});
            }),
            "scores of 3 tokens from 4611686018427387903 to 0 lie too far apart to be measured");
  EXPECT_EQ(kept(std::vector<std::int64_t>{high * 8 - 1, 0, 3}, {.rule = keep_rule::top_k}), indices{0});
}

TEST(core_tokens, a_share_or_a_number_is_known_before_the_scores) {
  std::mt19937 random(45);
  for (int round = 0; round < 300; ++round) {
    keep_options options = random_options(random);
    if (options.rule == keep_rule::max_distance) options.rule = keep_rule::ratio;
    const std::vector<std::int32_t> scores(static_cast<std::size_t>(1 + test::below(60, random)));
    ASSERT_EQ(kept_count(options, std::ssize(scores)), std::ssize(kept(scores, options)));
  }
}

TEST(core_tokens, options_out_of_range_are_named) {
  const auto refused = [](const keep_options& options) {
    return test::message_of([&] { options.validate(); });
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({.rule = keep_rule::top_k, .count = 0}), "top_k keeps at least 1 token, got count = 0");
  for (const double bad : {0.0, -1.0, 1.5, static_cast<double>(NAN)}) {
    EXPECT_NE(refused({.rule = keep_rule::ratio, .ratio = bad}).find("ratio must lie in (0, 1], got "),
              std::string::npos);
    EXPECT_EQ(refused({.ratio = bad}), "");  // read by no other rule
  }
  EXPECT_EQ(refused({.min_tokens = 0}), "min_tokens must be at least 1: the kept set is never empty, got 0");
  EXPECT_EQ(refused({.min_tokens = 5, .max_tokens = 4}),
            "max_tokens must not be below min_tokens = 5, got 4");
  EXPECT_NE(test::message_of([] { kept<int>({}, {.min_tokens = 0}); }), "");
}

TEST(overlap, counts_the_neurons_that_a_token_shares_with_the_core) {
  std::mt19937 random(44);
  for (int round = 0; round < 200; ++round) {
    const index tokens = test::below(5, random), words = 1 + test::below(6, random), gap = round % 3;
    std::vector<word> bits(tokens * (words + gap)), core(words);
    for (auto& w : bits) w = word{random()} << 32 | random();
    for (auto& w : core) w = word{random()} << 32 | random();
    std::vector<std::int32_t> scores(tokens);
    overlap(bits.data(), tokens, words + gap, core.data(), words, scores.data());
    for (index x = 0; x < tokens; ++x) {
      std::int32_t common = 0;
      for (index n = 0; n < words * bits_per_word; ++n) {
        common += test_bit(&bits[x * (words + gap)], n) && test_bit(core.data(), n) ? 1 : 0;
      }
      ASSERT_EQ(scores[x], common);
    }
  }
}

}  // namespace
}  // namespace corematching::select

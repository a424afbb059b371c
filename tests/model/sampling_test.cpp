// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/generation/sampling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "support/error_text.hpp"

namespace corematching {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int draws = 8000;

/// How often each id is drawn, as a share of all draws.
std::map<std::int32_t, double> shares(const std::vector<float>& logits, const sampling_options& options) {
  sampler choose(options);
  std::map<std::int32_t, double> result;
  for (int draw = 0; draw < draws; ++draw) result[choose(logits)] += 1.0 / draws;
  return result;
}

/// Expects the shares p_i. A share of n draws scatters by sqrt(p (1 - p) / n) <= 0.5 / sqrt(n); five times
/// that happens to no fixed seed by accident.
void expect_shares(const std::map<std::int32_t, double>& measured, const std::map<std::int32_t, double>& p) {
  for (const auto& [id, share] : measured) EXPECT_TRUE(p.contains(id)) << id << " was drawn, share " << share;
  for (const auto& [id, share] : p) {
    const auto found = measured.find(id);
    ASSERT_NE(found, measured.end()) << id;
    EXPECT_NEAR(found->second, share, 2.5 / std::sqrt(draws)) << id;
  }
}

/// softmax(logits / temperature) over the given ids.
std::map<std::int32_t, double> softmax_of(const std::vector<float>& logits,
                                          const std::vector<std::int32_t>& ids, double temperature) {
  std::map<std::int32_t, double> p;
  double sum = 0;
  for (const std::int32_t id : ids)
    sum += p[id] = std::exp(double{logits[static_cast<std::size_t>(id)]} / temperature);
  for (auto& [id, share] : p) share /= sum;
  return p;
}

const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.5f, 0.0f};

TEST(sampler, takes_the_largest_logit_by_default) {
  sampler choose;
  EXPECT_EQ(choose(logits), 1);
  EXPECT_EQ(choose(std::vector<float>{-3.0f, -infinity, -2.0f}), 2);
}

TEST(sampler, greedy_ties_go_to_the_lowest_id) {
  EXPECT_EQ(sampler()(std::vector<float>{1.0f, 3.0f, 3.0f, 2.0f, 3.0f}), 1);
  EXPECT_EQ(sampler()(std::vector<float>(9, -0.5f)), 0);
}

TEST(sampler, draws_by_softmax_of_the_logits_over_temperature) {
  for (const double temperature : {0.5, 1.0, 3.0})
    expect_shares(shares(logits, {.temperature = temperature, .seed = 1}),
                  softmax_of(logits, {0, 1, 2, 3, 4}, temperature));
}

TEST(sampler, top_k_draws_among_the_k_largest) {
  expect_shares(shares(logits, {.temperature = 1, .top_k = 2, .seed = 2}), softmax_of(logits, {1, 3}, 1));
  expect_shares(shares(logits, {.temperature = 1, .top_k = 1, .seed = 2}), {{1, 1.0}});
  expect_shares(shares(logits, {.temperature = 1, .top_k = 99, .seed = 2}),
                softmax_of(logits, {0, 1, 2, 3, 4}, 1));
}

TEST(sampler, top_k_takes_the_lower_ids_of_equal_logits) {
  expect_shares(shares({1, 1, 1, 1}, {.temperature = 1, .top_k = 2, .seed = 3}), {{0, 0.5}, {1, 0.5}});
}

TEST(sampler, top_p_draws_among_the_fewest_that_reach_the_share) {
  // Shares of 1, 3, 0, 4, 2 in descending order: 0.474, 0.287, 0.106, 0.064, 0.024 of their sum.
  expect_shares(shares(logits, {.temperature = 1, .top_p = 0.6, .seed = 4}), softmax_of(logits, {1, 3}, 1));
  expect_shares(shares(logits, {.temperature = 1, .top_p = 0.4, .seed = 4}), {{1, 1.0}});
  expect_shares(shares(logits, {.temperature = 1, .top_p = 1e-9, .seed = 4}), {{1, 1.0}});
}

TEST(sampler, top_p_measures_shares_of_what_temperature_and_top_k_left) {
  // Of 1 and 3 alone, 1 has a share of 0.62: enough for 0.6.
  expect_shares(shares(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6, .seed = 5}), {{1, 1.0}});
  // At temperature 0.25 its share of all is 0.88.
  expect_shares(shares(logits, {.temperature = 0.25, .top_p = 0.8, .seed = 5}), {{1, 1.0}});
}

TEST(sampler, never_chooses_an_id_whose_logit_is_minus_infinity) {
  const std::vector<float> banned = {0.0f, -infinity, 0.0f, -infinity};
  expect_shares(shares(banned, {.temperature = 2, .seed = 6}), {{0, 0.5}, {2, 0.5}});
}

TEST(sampler, never_chooses_an_id_beyond_the_vocabulary_limit) {
  const std::vector<float> padded = {0.0f, 0.0f, 50.0f, NAN};
  EXPECT_EQ(sampler({.vocabulary_limit = 2})(padded), 0);
  expect_shares(shares(padded, {.temperature = 1, .seed = 7, .vocabulary_limit = 2}), {{0, 0.5}, {1, 0.5}});
  EXPECT_EQ(sampler({.vocabulary_limit = 99})(logits), 1);
}

TEST(sampler, never_chooses_ids_that_are_named) {
  EXPECT_EQ(sampler({.never = {1}})(logits), 3);
  EXPECT_EQ(sampler({.never = {1, 3, 99}})(logits), 0);
  EXPECT_EQ(sampler({.vocabulary_limit = 3, .never = {1}})(logits), 0);
  expect_shares(shares(logits, {.temperature = 0.7, .seed = 3, .never = {1, 4}}),
                softmax_of(logits, {0, 2, 3}, 0.7));
  support::expect_parts(support::error_text([] { sampler({.never = {0}})(std::vector<float>{1.0f}); }),
                        "infinite");
  support::expect_parts(support::error_text([] { sampler({.never = {-1}}); }), "-1");
}

TEST(sampler, the_same_seed_gives_the_same_tokens_and_another_seed_others) {
  const auto draw = [](std::uint64_t seed) {
    sampler choose({.temperature = 1, .seed = seed});
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(choose(logits));
    return ids;
  };
  EXPECT_EQ(draw(8), draw(8));
  EXPECT_NE(draw(8), draw(9));
}

TEST(sampler, draws_the_same_tokens_on_every_platform) {
  // mt19937_64 is specified bit by bit: its first word from seed 5489 is 14514284786278117030, a fraction of
  // 0.787.
  EXPECT_EQ(sampler({.temperature = 1, .seed = 5489})(std::vector<float>(100, 0.0f)), 78);
}

/// Draws as `sampler` says it does, from the whole vocabulary in order.
class sorting_sampler {
 public:
  explicit sorting_sampler(const sampling_options& options) : options_(options), random_(options.seed) {}

  std::int32_t operator()(const std::vector<float>& logits) {
    const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
    if (options_.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options_.top_k)));
    std::vector<double> sums;  // of the weights up to each rank
    for (const std::int32_t id : order) {
      const double below = double{logit(id)} - double{logit(order[0])};
      sums.push_back((sums.empty() ? 0 : sums.back()) + std::exp(below / options_.temperature));
    }
    const auto end = std::ranges::lower_bound(sums, options_.top_p * sums.back());
    if (options_.top_p < 1) sums.resize(static_cast<std::size_t>(end - sums.begin()) + 1);
    const double fraction = static_cast<double>(random_() >> 11) * 0x1p-53;
    const auto drawn = std::ranges::upper_bound(sums, fraction * sums.back());
    return order[static_cast<std::size_t>(drawn - sums.begin())];
  }

 private:
  sampling_options options_;
  std::mt19937_64 random_;
};

// Logits in steps of a quarter, so that most of them have equals, also where top-k and top-p cut.
TEST(sampler, draws_what_a_sorted_vocabulary_gives) {
  std::mt19937 random(11);
  for (const std::size_t ids : {1u, 5u, 64u, 65u, 3000u}) {
    std::vector<float> tied(ids);
    for (float& x : tied)
      x = random() % 10 == 0 ? -infinity : 0.25f * static_cast<float>(static_cast<int>(random() % 40) - 20);
    tied[ids / 2] = 5;
    for (const double temperature : {0.3, 1.0, 100.0})
      for (const index top_k : {0, 1, 3, 64, 65, 600, 5000})
        for (const double top_p : {1.0, 0.999, 0.9, 0.5, 1e-9}) {
          const sampling_options options{temperature, top_k, top_p, random()};
          sampler choose(options);
          sorting_sampler expected(options);
          for (int draw = 0; draw < 10; ++draw)
            ASSERT_EQ(choose(tied), expected(tied))
                << ids << " ids, temperature " << temperature << ", top-k " << top_k << ", top-p " << top_p;
        }
  }
}

TEST(sampler, refuses_to_choose_among_no_logits) {
  support::expect_parts(support::error_text([] { sampler()(std::vector<float>{}); }), "no logits");
}

TEST(sampler, extreme_logits_and_temperatures_stay_finite) {
  EXPECT_EQ(sampler({.temperature = 1e-300})(logits), 1);
  EXPECT_EQ(sampler({.temperature = 1})(std::vector<float>{-3e38f, 3e38f}), 1);
  expect_shares(shares({1e4f, 1e4f}, {.temperature = 1, .seed = 10}), {{0, 0.5}, {1, 0.5}});
}

TEST(sampler, a_nan_is_an_error_that_names_the_token) {
  for (const double temperature : {0.0, 1.0})
    support::expect_parts(support::error_text([&] {
                            sampler({.temperature = temperature})(std::vector<float>{0, 1, NAN});
                          }),
                          "token 2", "NaN");
}

TEST(sampler, refuses_logits_without_a_finite_largest) {
  const auto text = [](const std::vector<float>& values) {
    return support::error_text([&] { sampler()(values); });
  };
  support::expect_parts(text({-infinity, -infinity}), "infinite");
  support::expect_parts(text({0.0f, infinity}), "infinite");
  support::expect_parts(text({}), "no logits");
}

TEST(sampler, refuses_options_out_of_range_and_names_them) {
  const auto text = [](sampling_options options) {
    return support::error_text([&] { sampler choose(options); });
  };
  for (const double temperature : {-0.1, static_cast<double>(NAN), static_cast<double>(infinity)})
    support::expect_parts(text({.temperature = temperature}), "temperature");
  support::expect_parts(text({.top_k = -1}), "top-k", "-1");
  for (const double top_p : {0.0, 1.01, static_cast<double>(NAN)})
    support::expect_parts(text({.top_p = top_p}), "top-p");
  support::expect_parts(text({.vocabulary_limit = -1}), "vocabulary limit", "-1");
}

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/rarity.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <random>
#include <vector>

#include "corematching/select.hpp"
#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

using slow::indices;

/// Sets of `tokens` tokens, with rubbish between the rows.
struct made_up_sets {
  index tokens, neurons, words, stride;
  std::vector<word> bits;

  made_up_sets(index count, index size, std::mt19937& random)
      : tokens(count), neurons(size), words(words_for(size)), stride(words + test::below(3, random)) {
    for (index i = 0; i < tokens * stride; ++i) bits.push_back(word{random()} << 32 | random());
    for (index x = 0; x < tokens; ++x)
      for (index n = neurons; n < words * bits_per_word; ++n)
        bits[static_cast<std::size_t>(x * stride + words - 1)] &= ~(word{1} << n % bits_per_word);
  }
  bool has(index x, index n) const { return test_bit(bits.data() + x * stride, n); }
  index firing(index n) const {
    index count = 0;
    for (index x = 0; x < tokens; ++x) count += has(x, n) ? 1 : 0;
    return count;
  }
};

std::int64_t defined_weight(index firing, index tokens) {
  const auto ratio = static_cast<long double>(tokens) / static_cast<long double>(std::max<index>(firing, 1));
  return std::llround(256.0L * std::log2(ratio));
}

TEST(rarity_weight, is_the_rounded_logarithm_of_every_ratio) {
  for (index tokens = 1; tokens <= 1500; ++tokens)
    for (index firing = 0; firing <= tokens; ++firing)
      ASSERT_EQ(rarity_weight(firing, tokens), defined_weight(firing, tokens)) << firing << " of " << tokens;
  for (const index tokens : {2880, 65536, 1000003, 2147483647})
    for (index firing = 1; firing < tokens; firing = firing * 3 / 2 + 1)
      ASSERT_EQ(rarity_weight(firing, tokens), defined_weight(firing, tokens)) << firing << " of " << tokens;
}

TEST(rarity_weight, is_nothing_where_every_token_fires_and_most_where_one_does) {
  EXPECT_EQ(rarity_weight(576, 576), 0);
  EXPECT_EQ(rarity_weight(288, 576), 256);
  EXPECT_EQ(rarity_weight(1, 512), 9 * 256);
  EXPECT_EQ(rarity_weight(0, 512), rarity_weight(1, 512));
  EXPECT_EQ(rarity_weight(0, 0), 0);
}

TEST(count_firing_tokens, counts_the_tokens_of_every_neuron) {
  std::mt19937 random(61);
  for (int round = 0; round < 60; ++round) {
    const made_up_sets sets(test::below(70, random), 1 + test::below(1300, random), random);
    std::vector<std::int32_t> counts(static_cast<std::size_t>(sets.neurons), -1);
    count_firing_tokens(sets.bits.data(), sets.tokens, sets.stride, sets.neurons, counts.data());
    for (index n = 0; n < sets.neurons; ++n)
      ASSERT_EQ(counts[static_cast<std::size_t>(n)], sets.firing(n)) << "neuron " << n;
  }
}

TEST(count_firing_tokens, counts_past_every_power_of_two) {
  for (const index tokens : {1, 2, 3, 4, 255, 256, 257, 2050}) {
    const std::vector<word> bits(static_cast<std::size_t>(tokens), 0x8000000000000005u);
    std::vector<std::int32_t> counts(64);
    count_firing_tokens(bits.data(), tokens, 1, 64, counts.data());
    for (std::size_t n = 0; n < 64; ++n)
      EXPECT_EQ(counts[n], n == 0 || n == 2 || n == 63 ? tokens : 0) << tokens << " tokens, neuron " << n;
  }
}

TEST(sum_weights, adds_the_weights_of_the_neurons_that_a_token_has) {
  std::mt19937 random(62);
  for (int round = 0; round < 60; ++round) {
    const made_up_sets sets(test::below(9, random), 1 + test::below(400, random), random);
    std::vector<std::int64_t> weights;
    for (index n = 0; n < sets.neurons; ++n)
      weights.push_back(static_cast<std::int64_t>(random()) << (random() % 20));
    std::vector<std::int64_t> scores(static_cast<std::size_t>(sets.tokens), -1);
    sum_weights(sets.bits.data(), sets.tokens, sets.stride, {weights.data(), sets.neurons}, scores.data());
    for (index x = 0; x < sets.tokens; ++x) {
      std::int64_t sum = 0;
      for (index n = 0; n < sets.neurons; ++n)
        sum += sets.has(x, n) ? weights[static_cast<std::size_t>(n)] : 0;
      ASSERT_EQ(scores[static_cast<std::size_t>(x)], sum) << "token " << x;
    }
  }
}

TEST(rarity_scores, are_what_the_definition_says) {
  std::mt19937 random(63);
  for (int round = 0; round < 60; ++round) {
    const made_up_sets sets(1 + test::below(40, random), 1 + test::below(300, random), random);
    std::vector<std::int32_t> reference;
    for (index n = 0; n < sets.neurons; ++n) reference.push_back(test::below(30, random));
    std::vector<std::int64_t> scores(static_cast<std::size_t>(sets.tokens));
    rarity_scores(sets.bits.data(), sets.tokens, sets.stride, {reference.data(), sets.neurons},
                  scores.data());
    for (index x = 0; x < sets.tokens; ++x) {
      std::int64_t sum = 0;
      for (index n = 0; n < sets.neurons; ++n)
        if (sets.has(x, n))
          sum += reference[static_cast<std::size_t>(n)] * defined_weight(sets.firing(n), sets.tokens);
      ASSERT_EQ(scores[static_cast<std::size_t>(x)], sum) << "token " << x;
    }
  }
}

TEST(rarity_scores, move_with_the_tokens_and_stay_where_neurons_move) {
  std::mt19937 random(64);
  const made_up_sets sets(23, 190, random);
  std::vector<std::int32_t> reference;
  for (index n = 0; n < sets.neurons; ++n) reference.push_back(test::below(9, random));
  const auto permutation = [&](index size) {
    std::vector<index> order(static_cast<std::size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, random);
    return order;
  };
  const std::vector<index> tokens = permutation(sets.tokens), neurons = permutation(sets.neurons);
  std::vector<word> moved(static_cast<std::size_t>(sets.tokens * sets.words));
  std::vector<std::int32_t> moved_reference(reference.size());
  for (index n = 0; n < sets.neurons; ++n) {
    const index from = neurons[static_cast<std::size_t>(n)];
    moved_reference[static_cast<std::size_t>(n)] = reference[static_cast<std::size_t>(from)];
    for (index x = 0; x < sets.tokens; ++x)
      if (sets.has(tokens[static_cast<std::size_t>(x)], from)) set_bit(moved.data() + x * sets.words, n);
  }
  std::vector<std::int64_t> scores(static_cast<std::size_t>(sets.tokens)), after(scores.size());
  rarity_scores(sets.bits.data(), sets.tokens, sets.stride, {reference.data(), sets.neurons}, scores.data());
  rarity_scores(moved.data(), sets.tokens, sets.words, {moved_reference.data(), sets.neurons}, after.data());
  for (std::size_t x = 0; x < after.size(); ++x)
    EXPECT_EQ(after[x], scores[static_cast<std::size_t>(tokens[x])]) << "token " << x;
}

TEST(rare_tokens, are_those_that_stand_out) {
  // Eight tokens fire neurons 0 to 63; the third and the sixth fire another 8 each, which the question has.
  constexpr index tokens = 8, neurons = 80;
  std::vector<float> activation(tokens * neurons, -1.0f);
  for (index x = 0; x < tokens; ++x)
    for (index n = 0; n < neurons; ++n)
      if (n < 64 || (x == 2 && n < 72) || (x == 5 && n >= 72))
        activation[static_cast<std::size_t>(x * neurons + n)] = 1.0f;
  const std::vector<float> question(2 * neurons, 1.0f);
  const std::vector<std::int32_t> counts = firing_tokens(question.data(), 2, neurons, neurons);
  EXPECT_EQ(counts, std::vector<std::int32_t>(neurons, 2));
  const keep_options two{.rule = keep_rule::top_k, .count = 2};
  const vector_view<const std::int32_t> reference{counts.data(), neurons};
  EXPECT_EQ(rare_tokens(activation.data(), tokens, neurons, reference, two), (indices{2, 5}));
  EXPECT_EQ(rare_tokens(activation.data(), tokens, neurons, reference, {.strict = true}), (indices{2, 5}))
      << "the elbow is the first of the others";
}

TEST(contrast_set, is_the_reference_without_what_the_image_has) {
  const auto rest = [](const indices& reference, const indices& image) {
    return contrast_set({reference.data(), std::ssize(reference)}, {image.data(), std::ssize(image)});
  };
  EXPECT_EQ(rest({1, 4, 7, 9}, {0, 4, 9, 12}), (indices{1, 7}));
  EXPECT_EQ(rest({1, 4}, {}), (indices{1, 4}));
  EXPECT_EQ(rest({}, {3}), indices{});
}

}  // namespace
}  // namespace corematching::select

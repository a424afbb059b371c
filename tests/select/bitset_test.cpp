// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/bitset.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <set>
#include <vector>

#include "select/made_up_activations.hpp"

namespace corematching::select {
namespace {

index_view<> view_of(const std::vector<std::int32_t>& indices) {
  return {indices.data(), std::ssize(indices)};
}

std::set<std::int32_t> random_set(index bits, std::mt19937& random) {
  std::set<std::int32_t> members;
  for (std::int32_t draws = test::below(bits + 1, random); draws > 0; --draws)
    members.insert(test::below(bits, random));
  return members;
}

TEST(bitset, words_hold_all_bits_and_no_word_more) {
  EXPECT_EQ(words_for(0), 0);
  EXPECT_EQ(words_for(1), 1);
  EXPECT_EQ(words_for(63), 1);
  EXPECT_EQ(words_for(64), 1);
  EXPECT_EQ(words_for(65), 2);
  EXPECT_EQ(words_for(11008), 172);
}

TEST(bitset, a_set_bit_tests_true_and_no_other) {
  for (const index bit : {0, 1, 31, 32, 63, 64, 65, 127}) {
    word bits[2] = {};
    set_bit(bits, bit);
    for (index other = 0; other < 128; ++other)
      EXPECT_EQ(test_bit(bits, other), other == bit) << bit << ' ' << other;
  }
}

TEST(bitset, indices_become_bits_and_come_back_ascending) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const index bits = 1 + test::below(200, random);
    const std::set<std::int32_t> members = random_set(bits, random);
    std::vector<std::int32_t> shuffled(members.begin(), members.end());
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    std::vector<word> words(words_for(bits), ~word{0});  // what was there before must not survive
    indices_to_bits(view_of(shuffled), words.data(), std::ssize(words));
    for (std::int32_t i = 0; i < bits; ++i) ASSERT_EQ(test_bit(words.data(), i), members.contains(i));
    ASSERT_EQ(bits_to_indices(words.data(), std::ssize(words)),
              std::vector<std::int32_t>(members.begin(), members.end()));
    ASSERT_EQ(count(words.data(), std::ssize(words)), std::ssize(members));
  }
}

TEST(bitset, intersection_counts_common_members) {
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    const index bits = 1 + test::below(300, random);
    const auto a = random_set(bits, random), b = random_set(bits, random);
    std::vector<std::int32_t> common;
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
    std::vector<word> words_a(words_for(bits)), words_b(words_for(bits));
    indices_to_bits(view_of({a.begin(), a.end()}), words_a.data(), std::ssize(words_a));
    indices_to_bits(view_of({b.begin(), b.end()}), words_b.data(), std::ssize(words_b));
    ASSERT_EQ(intersection_count(words_a.data(), words_b.data(), std::ssize(words_a)), std::ssize(common));
  }
}

TEST(bitset, refuses_an_index_outside_the_words) {
  word bits[1] = {};
  EXPECT_EQ(test::message_of([&] { indices_to_bits(view_of({64}), bits, 1); }),
            "index 64 does not fit a set of 64 bits");
  EXPECT_EQ(test::message_of([&] { indices_to_bits(view_of({-1}), bits, 1); }),
            "index -1 does not fit a set of 64 bits");
}

}  // namespace
}  // namespace corematching::select

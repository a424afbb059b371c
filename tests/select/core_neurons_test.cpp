// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/core_neurons.hpp"

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

using frequencies = std::vector<std::int32_t>;

struct activated_sets {
  index stride;
  std::vector<word> bits;
  std::vector<std::int32_t> counts;
};

template <class T>
activated_sets activated(const test::activation_matrix<T>& a, index gap = 0) {
  activated_sets sets{words_for(a.neurons) + gap, {}, std::vector<std::int32_t>(a.tokens)};
  sets.bits.assign(a.tokens * sets.stride, ~word{0});
  activated_neurons(a.row(0), a.tokens, a.neurons, a.stride, sets.bits.data(), sets.stride,
                    sets.counts.data());
  return sets;
}

/// f(n) of the rows [first, last), rule per_token.
template <class T>
frequencies counted(const test::activation_matrix<T>& a, double rho, index first, index last) {
  frequencies f(a.neurons);
  std::vector<word> bits(words_for(a.neurons));
  core_scratch scratch;
  for (index x = first; x < last; ++x) {
    std::int32_t size = 0;
    activated_neurons(a.row(x), 1, a.neurons, a.stride, bits.data(), 0, &size, x);
    count_core_neurons(a.row(x), a.neurons, core_size(rho, size), scratch, f.data());
  }
  return f;
}

slow::indices chosen(const frequencies& f, double beta) {
  return core_neurons(vector_view<const std::int32_t>{f.data(), std::ssize(f)}, beta);
}

frequencies random_frequencies(std::mt19937& random) {
  frequencies f(1 + test::below(300, random));
  const std::int32_t levels = 1 + test::below(8, random);
  for (auto& count : f) count = test::below(levels, random);
  return f;
}

template <class T>
class core_neurons_of : public testing::Test {};
using storage_types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(core_neurons_of, storage_types);

TYPED_TEST(core_neurons_of, activated_neurons_are_the_positive_ones) {
  std::mt19937 random(31);
  for (int round = 0; round < 300; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const activated_sets sets = activated(a, test::below(3, random));
    for (index x = 0; x < a.tokens; ++x) {
      const slow::indices expected = slow::activated(a.row(x), a.neurons);
      ASSERT_EQ(bits_to_indices(sets.bits.data() + x * sets.stride, words_for(a.neurons)), expected);
      ASSERT_EQ(sets.counts[x], std::ssize(expected));
    }
  }
}

#if COREMATCHING_HAS_SIMD
TYPED_TEST(core_neurons_of, vector_and_scalar_paths_agree) {
  std::mt19937 random(32);
  for (int round = 0; round < 300; ++round) {
    auto a = test::any_activations<TypeParam>(random);
    if (round % 4 == 0)
      a.row(0)[test::below(a.neurons, random)] = test::stored<TypeParam>(round % 8 == 0 ? NAN : INFINITY);
    std::vector<word> one_by_one(words_for(a.neurons)), vector(words_for(a.neurons));
    const bool finite = detail::pack_positive_scalar(a.row(0), a.neurons, one_by_one.data());
    ASSERT_EQ(detail::pack_positive_vector(a.row(0), a.neurons, vector.data()), finite);
    ASSERT_EQ(finite, round % 4 != 0);
    ASSERT_EQ(vector, one_by_one);

    const std::int32_t key = activation_key(a.row(0)[test::below(a.neurons, random)]);
    frequencies f_one_by_one(a.neurons, 3), f_vector(a.neurons, 3);
    detail::count_above_scalar(a.row(0), a.neurons, key, f_one_by_one.data());
    detail::count_above_vector(a.row(0), a.neurons, key, f_vector.data());
    ASSERT_EQ(f_vector, f_one_by_one);
  }
}
#endif

TYPED_TEST(core_neurons_of, zeros_of_both_signs_are_not_activated_and_the_least_positive_number_is) {
  for (const index neurons : {1, 7, 8, 63, 64, 65, 200}) {
    test::activation_matrix<TypeParam> a(1, neurons);
    for (index n = 0; n < neurons; ++n) a.row(0)[n] = test::stored<TypeParam>(n % 2 == 0 ? 0.0f : -0.0f);
    EXPECT_EQ(activated(a).counts[0], 0);
    if constexpr (sizeof(TypeParam) == 2) {
      a.row(0)[neurons - 1] = TypeParam{1};
    } else {
      a.row(0)[neurons - 1] = std::numeric_limits<float>::denorm_min();
    }
    EXPECT_EQ(activated(a).counts[0], 1);
    EXPECT_TRUE(test_bit(activated(a).bits.data(), neurons - 1));
  }
}

TYPED_TEST(core_neurons_of, nan_and_infinity_are_errors_that_name_token_and_neuron) {
  for (const index neurons : {1, 63, 64, 65, 131}) {
    for (const index bad : {index{0}, neurons / 2, neurons - 1}) {
      for (const float value : {NAN, -NAN, INFINITY, -INFINITY}) {
        test::activation_matrix<TypeParam> a(3, neurons, 5);
        std::fill(a.values.begin(), a.values.end(), test::stored<TypeParam>(-1.0f));
        a.row(2)[bad] = test::stored<TypeParam>(value);
        std::ostringstream expected;
        expected << "activation of token 2, neuron " << bad << " is "
                 << (std::isnan(value) ? "NaN" : "infinite");
        EXPECT_EQ(test::message_of([&] { activated(a); }), expected.str());
      }
    }
  }
}

TYPED_TEST(core_neurons_of, tokens_of_a_chunk_are_named_as_in_the_prompt) {
  const TypeParam bad = test::stored<TypeParam>(NAN);
  word bits = 0;
  std::int32_t counts = 0;
  EXPECT_EQ(test::message_of([&] { activated_neurons(&bad, 1, 1, 1, &bits, 1, &counts, 640); }),
            "activation of token 640, neuron 0 is NaN");
}

TYPED_TEST(core_neurons_of, frequencies_are_those_of_sorting_each_token) {
  std::mt19937 random(33);
  for (int round = 0; round < 300; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const double rho = (1 + test::below(100, random)) / 100.0;
    ASSERT_EQ(counted(a, rho, 0, a.tokens), slow::frequencies(a, rho, 0, a.tokens)) << "rho = " << rho;
  }
}

TYPED_TEST(core_neurons_of, chunks_add_up_to_the_whole_prompt) {
  std::mt19937 random(34);
  for (int round = 0; round < 200; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const index cut = test::below(a.tokens + 1, random);
    const frequencies front = counted(a, 0.2, 0, cut), back = counted(a, 0.2, cut, a.tokens);
    frequencies sum(a.neurons);
    std::transform(front.begin(), front.end(), back.begin(), sum.begin(), std::plus<>{});
    ASSERT_EQ(sum, counted(a, 0.2, 0, a.tokens));
  }
}

TYPED_TEST(core_neurons_of, permuted_tokens_have_the_same_frequencies) {
  std::mt19937 random(35);
  for (int round = 0; round < 100; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    auto reversed = a;
    for (index x = 0; x < a.tokens; ++x) std::copy_n(a.row(a.tokens - 1 - x), a.neurons, reversed.row(x));
    ASSERT_EQ(counted(reversed, 0.3, 0, a.tokens), counted(a, 0.3, 0, a.tokens));
  }
}

TYPED_TEST(core_neurons_of, permuted_neurons_have_permuted_frequencies_where_no_two_are_equal) {
  std::mt19937 random(36);
  for (int round = 0; round < 100; ++round) {
    const index neurons = 1 + test::below(120, random);
    test::activation_matrix<TypeParam> a(1, neurons), permuted(1, neurons);
    std::vector<std::int32_t> place(neurons);
    std::iota(place.begin(), place.end(), 0);
    for (index n = 0; n < neurons; ++n) a.row(0)[n] = test::stored<TypeParam>(static_cast<float>(n - 40));
    std::shuffle(a.row(0), a.row(0) + neurons, random);
    std::shuffle(place.begin(), place.end(), random);
    for (index n = 0; n < neurons; ++n) permuted.row(0)[place[n]] = a.row(0)[n];
    const frequencies f = counted(a, 0.4, 0, 1), g = counted(permuted, 0.4, 0, 1);
    for (index n = 0; n < neurons; ++n) ASSERT_EQ(f[n], g[place[n]]);
  }
}

TYPED_TEST(core_neurons_of, asking_for_no_neurons_counts_none_and_for_too_many_all_positive_ones) {
  std::mt19937 random(37);
  const auto a = test::make_activations<TypeParam>(1, 300, 0, test::flavour::quantised, random);
  core_scratch scratch;
  frequencies f(a.neurons);
  count_core_neurons(a.row(0), a.neurons, 0, scratch, f.data());
  EXPECT_EQ(f, frequencies(a.neurons));
  count_core_neurons(a.row(0), a.neurons, 100000, scratch, f.data());
  for (index n = 0; n < a.neurons; ++n) EXPECT_EQ(f[n], a.at(0, n) > 0.0f ? 1 : 0);
}

TEST(core_size, is_the_floor_of_the_share_but_at_least_one) {
  EXPECT_EQ(core_size(0.2, 0), 0);
  EXPECT_EQ(core_size(0.2, 1), 1);
  EXPECT_EQ(core_size(0.2, 4), 1);
  EXPECT_EQ(core_size(0.2, 9), 1);
  EXPECT_EQ(core_size(0.2, 10), 2);
  EXPECT_EQ(core_size(0.2, 5504), 1100);
  EXPECT_EQ(core_size(1.0, 11008), 11008);
  EXPECT_EQ(core_size(1e-300, 11008), 1);
}

TEST(core_size, rounds_as_ieee_double_does) {
  EXPECT_EQ(core_size(0.29, 100), 28);  // 0.29 · 100 rounds to 28.999999999999996
  EXPECT_EQ(core_size(0.7, 10), 7);     // 0.7 lies below 7/10, its product rounds to 7
}

TEST(core_size, of_the_mean_is_the_floor_of_its_share) {
  EXPECT_EQ(mean_core_size(0.2, 0, 0), 0);
  EXPECT_EQ(mean_core_size(0.2, 0, 5), 0);
  EXPECT_EQ(mean_core_size(0.2, 9, 2), 0);
  EXPECT_EQ(mean_core_size(0.2, 25, 5), 1);
  EXPECT_EQ(mean_core_size(1.0, 7, 2), 3);
  EXPECT_EQ(mean_core_size(0.2, std::int64_t{640} * 5504, 640), 1100);
  EXPECT_EQ(mean_core_size(0.5, std::int64_t{1} << 40, 1 << 10), std::int64_t{1} << 29);
}

TEST(core_neurons, refuses_shares_outside_0_to_1) {
  for (const double bad :
       {0.0, -0.2, 1.0000001, 2.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    EXPECT_NE(test::message_of([&] { core_size(bad, 5); }).find("rho must lie in (0, 1], got "),
              std::string::npos);
    EXPECT_NE(test::message_of([&] { mean_core_size(bad, 5, 1); }).find("rho must lie in"),
              std::string::npos);
    EXPECT_NE(test::message_of([&] {
                chosen({1, 2}, bad);
              }).find("beta must lie in (0, 1], got "),
              std::string::npos);
  }
}

TEST(core_neurons, are_what_sorting_by_frequency_gives) {
  std::mt19937 random(38);
  for (int round = 0; round < 600; ++round) {
    const frequencies f = random_frequencies(random);
    const double beta = (1 + test::below(100, random)) / 100.0;
    ASSERT_EQ(chosen(f, beta), slow::core_neurons(f, beta)) << "beta = " << beta;
  }
}

TEST(core_neurons, ties_go_to_the_lower_index) {
  EXPECT_EQ(chosen({2, 2, 3, 2, 2}, 0.6), (slow::indices{0, 1, 2}));
  EXPECT_EQ(chosen({1, 1, 1, 1}, 0.5), (slow::indices{0, 1}));
}

TEST(core_neurons, a_neuron_that_is_never_core_is_not_chosen_even_if_fewer_come_back) {
  EXPECT_EQ(chosen({0, 5, 0, 1, 0}, 1.0), (slow::indices{1, 3}));
  EXPECT_EQ(chosen({0, 0, 0}, 1.0), slow::indices{});
}

TEST(core_neurons, a_share_below_one_neuron_is_empty) {
  EXPECT_EQ(chosen({9}, 0.4), slow::indices{});
  EXPECT_EQ(chosen({9}, 1.0), slow::indices{0});
  EXPECT_EQ(chosen({}, 1.0), slow::indices{});
}

TEST(core_neurons, a_larger_share_is_a_superset) {
  std::mt19937 random(39);
  for (int round = 0; round < 200; ++round) {
    const frequencies f = random_frequencies(random);
    slow::indices smaller;
    for (int percent = 1; percent <= 100; percent += 3) {
      const slow::indices larger = chosen(f, percent / 100.0);
      ASSERT_TRUE(std::includes(larger.begin(), larger.end(), smaller.begin(), smaller.end()));
      ASSERT_TRUE(std::all_of(larger.begin(), larger.end(), [&](std::int32_t n) { return f[n] > 0; }));
      smaller = larger;
    }
  }
}

}  // namespace
}  // namespace corematching::select

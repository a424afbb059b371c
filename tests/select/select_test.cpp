// SPDX-License-Identifier: Apache-2.0
// The calls of corematching/select.hpp: activations in, indices out.
#include "corematching/select.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

using slow::indices;

template <class T>
indices neurons_of(const test::activation_matrix<T>& a, double rho, double beta,
                   core_count rule = core_count::per_token) {
  return core_neurons(a.row(0), a.tokens, a.neurons, a.stride, rho, beta, rule);
}

template <class T>
indices tokens_of(const test::activation_matrix<T>& a, const indices& core,
                  const keep_options& options = {}) {
  return core_tokens(a.row(0), a.tokens, a.neurons, a.stride, {core.data(), std::ssize(core)}, options);
}

/// Fraction in (0, 1] in steps of a hundredth.
double random_share(std::mt19937& random) {
  return (1 + test::below(100, random)) / 100.0;
}

template <class T>
class select_of : public testing::Test {};
using storage_types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(select_of, storage_types);

TYPED_TEST(select_of, core_neurons_are_what_the_definition_says) {
  std::mt19937 random(51);
  for (int round = 0; round < 200; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const double rho = random_share(random), beta = random_share(random);
    ASSERT_EQ(neurons_of(a, rho, beta), slow::core_neurons(slow::frequencies(a, rho, 0, a.tokens), beta))
        << "rho = " << rho << ", beta = " << beta;
  }
}

TYPED_TEST(select_of, mean_count_takes_equally_many_neurons_of_each_token) {
  std::mt19937 random(52);
  for (int round = 0; round < 200; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const double rho = random_share(random), beta = random_share(random);
    std::int64_t total = 0;
    for (index x = 0; x < a.tokens; ++x) total += std::ssize(slow::activated(a.row(x), a.neurons));
    const auto mean = static_cast<double>(total) / static_cast<double>(a.tokens);
    std::vector<std::int32_t> f(a.neurons);
    for (index x = 0; x < a.tokens; ++x) {
      const auto k = static_cast<index>(std::floor(rho * mean));
      for (const std::int32_t n : slow::largest_positive(a.row(x), a.neurons, k)) ++f[n];
    }
    ASSERT_EQ(neurons_of(a, rho, beta, core_count::mean_count), slow::core_neurons(f, beta));
  }
}

TYPED_TEST(select_of, core_tokens_are_what_the_definition_says) {
  std::mt19937 random(53);
  for (int round = 0; round < 200; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const indices core = neurons_of(a, 0.2, random_share(random));
    keep_options options;
    options.rule = static_cast<keep_rule>(test::below(3, random));
    options.strict = test::below(2, random) == 0;
    options.ratio = random_share(random);
    std::vector<std::int32_t> overlaps;
    for (index x = 0; x < a.tokens; ++x) {
      const auto positive = [&](std::int32_t n) { return a.at(x, n) > 0.0f; };
      overlaps.push_back(static_cast<std::int32_t>(std::count_if(core.begin(), core.end(), positive)));
    }
    ASSERT_EQ(tokens_of(a, core, options), slow::core_tokens(overlaps, options));
  }
}

TYPED_TEST(select_of, what_lies_between_the_rows_does_not_matter) {
  std::mt19937 random(54);
  const auto padded = test::make_activations<TypeParam>(6, 203, 5, test::flavour::continuous, random);
  test::activation_matrix<TypeParam> dense(6, 203);
  for (index x = 0; x < 6; ++x) std::copy_n(padded.row(x), 203, dense.row(x));
  const indices core = neurons_of(dense, 0.2, 0.4);
  EXPECT_EQ(neurons_of(padded, 0.2, 0.4), core);
  EXPECT_EQ(tokens_of(padded, core), tokens_of(dense, core));
}

TYPED_TEST(select_of, no_tokens_have_no_core) {
  const test::activation_matrix<TypeParam> a(0, 70);
  EXPECT_EQ(neurons_of(a, 0.2, 0.4), indices{});
  EXPECT_EQ(neurons_of(a, 0.2, 0.4, core_count::mean_count), indices{});
  EXPECT_EQ(tokens_of(a, {1, 2}), indices{});
}

TYPED_TEST(select_of, an_empty_core_tells_no_token_from_another) {
  std::mt19937 random(55);
  const auto a = test::make_activations<TypeParam>(9, 70, 0, test::flavour::continuous, random);
  EXPECT_EQ(tokens_of(a, {}).size(), 9u);
}

TEST(select, half_precision_selects_as_the_same_numbers_in_single_precision) {
  std::mt19937 random(56);
  for (int round = 0; round < 50; ++round) {
    const auto half = test::any_activations<f16>(random);
    test::activation_matrix<float> single(half.tokens, half.neurons);
    for (index x = 0; x < half.tokens; ++x) {
      for (index n = 0; n < half.neurons; ++n) single.row(x)[n] = half.at(x, n);
    }
    ASSERT_EQ(neurons_of(half, 0.2, 0.4), neurons_of(single, 0.2, 0.4));
  }
}

TEST(select, a_core_neuron_that_is_no_neuron_is_refused) {
  const test::activation_matrix<float> a(0, 70);
  EXPECT_EQ(test::message_of([&] { tokens_of(a, {70}); }), "core neuron 70 is not one of 70 neurons");
  EXPECT_EQ(test::message_of([&] { tokens_of(a, {-1}); }), "core neuron -1 is not one of 70 neurons");
}

TEST(select, shares_are_checked_before_any_activation_is_read) {
  EXPECT_EQ(test::message_of([] { core_neurons<float>(nullptr, 4, 4, 4, 0.0, 0.4); }),
            "rho must lie in (0, 1], got 0");
  EXPECT_EQ(test::message_of([] { core_neurons<float>(nullptr, 4, 4, 4, 0.2, 1.1); }),
            "beta must lie in (0, 1], got 1.1");
}

}  // namespace
}  // namespace corematching::select

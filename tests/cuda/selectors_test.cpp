// SPDX-License-Identifier: Apache-2.0
// The selectors in device memory against the definitions and against the host's selectors, index for index.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <vector>

#include "corematching/backend/cuda/selection.cuh"
#include "corematching/select/core_neurons.hpp"
#include "corematching/select/core_tokens.hpp"
#include "cuda/device_memory.hpp"
#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

using support::on_device;
using integers = std::vector<std::int32_t>;

/// Γ of every row as the device says, its words, and the activation that it stumbled over.
struct activated_sets {
  index stride;
  std::vector<word> bits;
  integers counts;
  device::activation_place bad;
};

/// Every `step`-th number from `first` on, below `end`.
integers numbers(std::int32_t first, index end, std::int32_t step) {
  integers result;
  for (std::int32_t n = first; n < end; n += step) result.push_back(n);
  return result;
}

integers random_frequencies(index neurons, std::mt19937& random) {
  integers f(static_cast<std::size_t>(neurons));
  const std::int32_t levels[] = {1, 2, 8, 700, 5000, std::numeric_limits<std::int32_t>::max()};
  const std::int32_t end = levels[test::below(std::ssize(levels), random)];
  for (auto& count : f) count = test::below(end, random);
  return f;
}

class device_selectors : public support::device_test {
 protected:
  template <class T>
  activated_sets activated(const test::activation_matrix<T>& a, index gap = 0) {
    const index stride = words_for(a.neurons) + gap;
    on_device<T> values(on.stream, a.values);
    on_device<word> bits(on.stream, std::vector<word>(a.tokens * stride, ~word{0}));
    on_device<std::int32_t> counts(on.stream, integers(a.tokens, -1));
    on_device<unsigned long long> bad(on.stream, {device::activation_place::none});
    device::activated_neurons(on.stream, values.data(), a.tokens, a.neurons, a.stride, bits.data(), stride,
                              counts.data(), bad.data());
    return {stride, bits.values(), counts.values(), {bad.values().at(0)}};
  }

  /// Frequencies, begun at 1 each, over the rows that are listed, or over all of them.
  template <class T>
  integers counted(const test::activation_matrix<T>& a, double rho, core_count rule,
                   const std::optional<integers>& rows) {
    on_device<T> values(on.stream, a.values);
    on_device<std::int32_t> counts(on.stream, activated(a).counts), size(on.stream, {-1});
    on_device<std::int32_t> frequency(on.stream, integers(a.neurons, 1));
    on_device<std::int32_t> listed(on.stream, rows.value_or(integers()));
    const std::int32_t* row_list = rows ? listed.data() : nullptr;
    const index tokens = rows ? std::ssize(*rows) : a.tokens;
    const bool shared = rule == core_count::mean_count;
    if (shared) device::mean_core_size(on.stream, counts.data(), row_list, tokens, rho, size.data());
    device::count_core_neurons(on.stream, values.data(), a.neurons, a.stride, row_list, tokens, counts.data(),
                               rho, shared ? size.data() : nullptr, frequency.data());
    return frequency.values();
  }

  /// The chosen neurons; fails the test where the bits say anything else.
  integers chosen(const integers& f, index wanted) {
    const index neurons = std::ssize(f);
    on_device<std::int32_t> frequency(on.stream, f), indices(on.stream, integers(wanted, -1)),
        size(on.stream, {-1});
    on_device<word> bits(on.stream, std::vector<word>(words_for(neurons), ~word{0}));
    device::core_neurons(on.stream, frequency.data(), neurons, wanted, indices.data(), bits.data(),
                         size.data());
    integers result = indices.values();
    result.resize(size.values().at(0));
    EXPECT_EQ(bits_to_indices(bits.values().data(), words_for(neurons)), result);
    return result;
  }
};

template <class T>
class device_selectors_of : public device_selectors {};
using storage_types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(device_selectors_of, storage_types);

/// The same by the host's selectors.
template <class T>
integers counted_by_host(const test::activation_matrix<T>& a, double rho, core_count rule,
                         const integers& rows) {
  std::vector<word> bits(words_for(a.neurons));
  integers f(a.neurons, 1), counts(a.tokens);
  for (index x = 0; x < a.tokens; ++x)
    activated_neurons(a.row(x), 1, a.neurons, a.stride, bits.data(), 0, &counts[x], x);
  std::int64_t total = 0;
  for (const std::int32_t x : rows) total += counts[x];
  const index shared = mean_core_size(rho, total, std::ssize(rows));
  core_scratch scratch;
  for (const std::int32_t x : rows)
    count_core_neurons(a.row(x), a.neurons,
                       rule == core_count::mean_count ? shared : core_size(rho, counts[x]), scratch,
                       f.data());
  return f;
}

TYPED_TEST(device_selectors_of, activated_neurons_are_the_positive_ones) {
  std::mt19937 random(31);
  for (int round = 0; round < 60; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const index gap = test::below(3, random);
    const activated_sets sets = this->activated(a, gap);
    ASSERT_FALSE(sets.bad.found());
    for (index x = 0; x < a.tokens; ++x) {
      const slow::indices expected = slow::activated(a.row(x), a.neurons);
      const word* bits = sets.bits.data() + x * sets.stride;
      ASSERT_EQ(bits_to_indices(bits, words_for(a.neurons)), expected);
      ASSERT_EQ(sets.counts[x], std::ssize(expected));
      for (index w = sets.stride - gap; w < sets.stride; ++w) ASSERT_EQ(bits[w], ~word{0});
    }
  }
}

TYPED_TEST(device_selectors_of, the_first_activation_that_is_no_number_is_found) {
  for (const index neurons : {1, 63, 64, 65, 300, 2049})
    for (const index bad : {index{0}, neurons / 2, neurons - 1})
      for (const float value : {NAN, -NAN, INFINITY, -INFINITY}) {
        test::activation_matrix<TypeParam> a(4, neurons, 5);
        std::fill(a.values.begin(), a.values.end(), test::stored<TypeParam>(-1.0f));
        a.row(2)[bad] = test::stored<TypeParam>(value);
        a.row(2)[neurons - 1] = test::stored<TypeParam>(value);
        a.row(3)[0] = test::stored<TypeParam>(NAN);
        const device::activation_place place = this->activated(a).bad;
        ASSERT_TRUE(place.found());
        EXPECT_EQ(place.token(), 2);
        EXPECT_EQ(place.neuron(), bad);
        EXPECT_EQ(place.is_nan(), std::isnan(value));
      }
}

TYPED_TEST(device_selectors_of, frequencies_are_those_of_the_host) {
  std::mt19937 random(32);
  for (int round = 0; round < 60; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const double rho = std::vector{0.001, 0.2, 0.5, 0.97, 1.0}[test::below(5, random)];
    for (const core_count rule : {core_count::per_token, core_count::mean_count}) {
      const integers all = numbers(0, a.tokens, 1), some = numbers(1, a.tokens, 2);
      ASSERT_EQ(this->counted(a, rho, rule, {}), counted_by_host(a, rho, rule, all));
      if (some.empty()) continue;
      ASSERT_EQ(this->counted(a, rho, rule, some), counted_by_host(a, rho, rule, some));
    }
  }
}

TYPED_TEST(device_selectors_of, ties_at_the_cut_go_to_the_lower_neuron_in_long_rows) {
  std::mt19937 random(33);
  for (const test::flavour kind : {test::flavour::quantised, test::flavour::equal, test::flavour::subnormal})
    for (const auto& [rho, neurons] :
         {std::pair(0.0003, 11008), {0.3, 11008}, {0.8, 11008}, {0.3, 13824}, {0.3, 16385}}) {
      const auto a = test::make_activations<TypeParam>(1, neurons, 0, kind, random);
      ASSERT_EQ(this->counted(a, rho, core_count::per_token, {}),
                counted_by_host(a, rho, core_count::per_token, {0}));
    }
}

TYPED_TEST(device_selectors_of, a_token_that_activates_nothing_has_no_core_neurons) {
  std::mt19937 random(34);
  const auto a = test::make_activations<TypeParam>(2, 100, 0, test::flavour::none_positive, random);
  for (const core_count rule : {core_count::per_token, core_count::mean_count})
    EXPECT_EQ(this->counted(a, 1.0, rule, {}), integers(100, 1));
}

TEST_F(device_selectors, core_neurons_are_the_most_frequent_with_ties_to_the_lower) {
  std::mt19937 random(35);
  // Registers hold up to 16,384 of them.
  for (const index neurons : {1, 2, 31, 63, 64, 65, 300, 2047, 2048, 2049, 4200, 11008, 16384, 16385, 20000})
    for (int round = 0; round < (neurons > 11008 ? 2 : 6); ++round) {
      const integers f = random_frequencies(neurons, random);
      for (const double beta : {0.0001, 0.1, 0.4, 0.999, 1.0}) {
        const auto wanted = static_cast<index>(std::floor(beta * static_cast<double>(neurons)));
        ASSERT_EQ(chosen(f, wanted), slow::core_neurons(f, beta)) << neurons << " neurons, beta " << beta;
      }
    }
}

TEST_F(device_selectors, overlap_counts_the_common_neurons) {
  std::mt19937_64 random(36);
  for (const index words : {1, 2, 31, 32, 33, 172})
    for (const index tokens : {1, 3, 4, 5, 9}) {
      const index stride = words + tokens % 2;
      std::vector<word> bits(tokens * stride), set(words);
      for (word& w : bits) w = random();
      for (word& w : set) w = random();
      integers expected(tokens);
      overlap(bits.data(), tokens, stride, set.data(), words, expected.data());
      on_device<word> placed_bits(on.stream, bits), placed_set(on.stream, set);
      on_device<std::int32_t> scores(on.stream, integers(tokens, -1));
      device::overlap(on.stream, placed_bits.data(), tokens, stride, placed_set.data(), words, scores.data());
      ASSERT_EQ(scores.values(), expected);
    }
}

/// The backend's functions, with what they tell the host.
class device_selection : public device_selectors {
 protected:
  cuda::detail::selection_state state;

  void observe(const test::activation_matrix<float>& a) {
    on_device<float> values(on.stream, a.values);
    on_device<word> bits(on.stream, std::vector<word>(a.tokens * words_for(a.neurons)));
    on_device<std::int32_t> counts(on.stream, integers(a.tokens));
    cuda::detail::activated_neurons(on, state,
                                    {bits.data(), a.tokens, words_for(a.neurons), words_for(a.neurons)},
                                    counts.view(), {values.data(), a.tokens, a.neurons, a.stride});
  }
};

TEST_F(device_selection, what_is_no_number_is_reported_by_the_next_set_or_the_next_call_that_waits) {
  test::activation_matrix<float> a(3, 70);
  std::fill(a.values.begin(), a.values.end(), 1.0f);
  on_device<std::int32_t> frequency(on.stream, {1, 0, 2});
  const auto check = [&] { cuda::detail::check_finite(on, state); };
  const auto chosen = [&] { return cuda::detail::core_neurons(on, state, frequency.view(), 1.0); };
  EXPECT_EQ(test::message_of(check), "");
  observe(a);
  EXPECT_EQ(test::message_of(check), "");
  a.row(1)[69] = -INFINITY;
  observe(a);
  EXPECT_EQ(test::message_of(check), "activation of token 1, neuron 69 is infinite");
  EXPECT_EQ(test::message_of(check), "");
  a.row(1)[0] = NAN;
  observe(a);
  const cuda::neuron_set before = chosen(), next = chosen();
  EXPECT_EQ(test::message_of(check), "") << "a set has taken it over";
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(test::message_of([&] { before.indices(); }), "activation of token 1, neuron 0 is NaN");
  EXPECT_EQ(next.indices().size, 2);
}

TEST_F(device_selection, sets_keep_their_sizes_whatever_is_chosen_before_they_are_looked_at) {
  std::vector<cuda::neuron_set> sets;
  for (int round = 0; round < 2; ++round) {  // the second takes places that the first gives back
    sets.clear();
    for (std::int32_t size = 0; size < 300; ++size) {
      integers frequencies(320, 0);
      std::fill_n(frequencies.begin(), size, 1);
      on_device<std::int32_t> placed(on.stream, frequencies);
      sets.push_back(cuda::detail::core_neurons(on, state, placed.view(), 1.0));
    }
    for (std::size_t i = sets.size(); i-- > 0;)
      ASSERT_EQ(sets[i].indices().size, static_cast<index>(i)) << "round " << round;
  }
}

TEST_F(device_selection, sets_have_the_size_of_what_was_chosen) {
  EXPECT_TRUE(cuda::neuron_set().indices().empty());
  EXPECT_TRUE(cuda::neuron_set().bits().empty());
  on_device<std::int32_t> frequency(on.stream, {0, 5, 0, 1, 2});
  cuda::neuron_set set = cuda::detail::core_neurons(on, state, frequency.view(), 1.0);
  EXPECT_EQ(set.indices().size, 3);
  EXPECT_EQ(set.bits().size, 1);
  set = cuda::detail::core_neurons(on, state, frequency.view(), 0.4);
  EXPECT_EQ(set.indices().size, 2);
  set = cuda::detail::core_neurons(on, state, frequency.view(), 0.1);
  EXPECT_TRUE(set.indices().empty());
}

TEST_F(device_selection, fractions_outside_their_range_are_errors) {
  on_device<std::int32_t> frequency(on.stream, {1}), counts(on.stream, {1});
  on_device<float> x(on.stream, {1.0f});
  for (const double fraction : {0.0, -0.5, 1.5}) {
    std::ostringstream range;
    range << " must lie in (0, 1], got " << fraction;
    EXPECT_EQ(test::message_of([&] { cuda::detail::core_neurons(on, state, frequency.view(), fraction); }),
              "beta" + range.str());
    EXPECT_EQ(test::message_of([&] {
                cuda::detail::count_core_neurons(on, state, frequency.view(), {x.data(), 1, 1, 1},
                                                 counts.view(), fraction, core_count::per_token);
              }),
              "rho" + range.str());
  }
}

TEST_F(device_selection, counts_listed_rows_by_both_rules) {
  std::mt19937 random(37);
  const auto a = test::make_activations<float>(6, 333, 3, test::flavour::continuous, random);
  const integers some = {0, 2, 5};
  on_device<float> values(on.stream, a.values);
  on_device<std::int32_t> counts(on.stream, activated(a).counts), rows(on.stream, some);
  for (const core_count rule : {core_count::per_token, core_count::mean_count}) {
    on_device<std::int32_t> frequency(on.stream, integers(333, 1));
    const auto count = [&](std::optional<index_view<device_space>> listed) {
      cuda::detail::count_core_neurons(on, state, frequency.view(), {values.data(), 6, 333, a.stride},
                                       counts.view(), 0.3, rule, listed);
    };
    count(index_view<device_space>{rows.data(), 0});
    EXPECT_EQ(frequency.values(), integers(333, 1));
    count(rows.view());
    EXPECT_EQ(frequency.values(), counted_by_host(a, 0.3, rule, some));
  }
}

}  // namespace
}  // namespace corematching::select

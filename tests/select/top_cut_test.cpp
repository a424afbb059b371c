// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/top_cut.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "select/made_up_activations.hpp"
#include "select/slow_selectors.hpp"

namespace corematching::select {
namespace {

template <class T>
slow::indices members(const T* row, index neurons, top_cut cut) {
  slow::indices result;
  for (index n = 0; n < neurons; ++n) {
    const std::int32_t key = activation_key(row[n]);
    if (key > cut.key || (key == cut.key && n < cut.ties_end)) result.push_back(static_cast<std::int32_t>(n));
  }
  return result;
}

template <class T>
class top_positive_of : public testing::Test {
 protected:
  void expect_same_as_sorting(const T* row, index neurons, index k) {
    ASSERT_EQ(members(row, neurons, top_positive(row, neurons, k, scratch_)),
              slow::largest_positive(row, neurons, k))
        << neurons << " neurons, k = " << k;
  }

  core_scratch scratch_;  // one for all calls, as a thread has it
};
using storage_types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(top_positive_of, storage_types);

TYPED_TEST(top_positive_of, any_row_is_what_sorting_gives) {
  std::mt19937 random(11);
  for (int round = 0; round < 400; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const index k = 1 + test::below(a.neurons, random);
    this->expect_same_as_sorting(a.row(0), a.neurons, k);
    this->expect_same_as_sorting(a.row(0), a.neurons, 1);
    this->expect_same_as_sorting(a.row(0), a.neurons, a.neurons);
  }
}

TYPED_TEST(top_positive_of, every_k_of_one_row_is_what_sorting_gives) {
  std::mt19937 random(12);
  for (const test::flavour kind : test::all_flavours) {
    const auto a = test::make_activations<TypeParam>(1, 131, 0, kind, random);
    for (index k = 1; k <= 132; ++k) this->expect_same_as_sorting(a.row(0), a.neurons, k);
  }
}

TYPED_TEST(top_positive_of, a_sample_that_misses_the_large_values_does_not_matter) {
  // Runs of equal length take turns, so whatever part of a row is sampled sees only small or only large
  // values.
  for (const index run : {1, 16, 128, 240, 256, 512, 2048}) {
    for (const bool large_first : {false, true}) {
      test::activation_matrix<TypeParam> a(1, 6007);
      for (index n = 0; n < a.neurons; ++n) {
        const bool large = ((n / run) % 2 == 0) == large_first;
        const auto spread = static_cast<float>(n % 37);
        a.row(0)[n] = test::stored<TypeParam>(large ? 64.0f + spread : 0.5f + spread / 64.0f);
      }
      for (const index k : {1, 10, 300, 601, 1200, 3003, 5000})
        this->expect_same_as_sorting(a.row(0), a.neurons, k);
    }
  }
}

TYPED_TEST(top_positive_of, large_values_in_the_first_cache_line_of_every_256_do_not_matter) {
  for (const index first : {0, 16, 240}) {
    test::activation_matrix<TypeParam> a(1, 8192);
    for (index n = 0; n < a.neurons; ++n) {
      const bool large = n % 256 >= first && n % 256 < first + 16;
      a.row(0)[n] = test::stored<TypeParam>(large ? 100.0f + static_cast<float>(n % 7)
                                                  : 0.5f + static_cast<float>(n % 5));
    }
    for (const index k : {1, 100, 512, 513, 800, 4000, 8192})
      this->expect_same_as_sorting(a.row(0), a.neurons, k);
  }
}

TYPED_TEST(top_positive_of, any_part_of_the_large_values_may_be_in_the_sample) {
  // With some of these parts the sample puts the floor below exactly the k large values.
  constexpr index large_values = 512;
  for (index in_sample = 0; in_sample <= 128; ++in_sample) {
    test::activation_matrix<TypeParam> a(1, 8192);
    index sampled = 0, other = 0;
    for (index n = 0; n < a.neurons; ++n) {
      const bool large = n % 256 < 16 ? sampled++ < in_sample : other++ < large_values - in_sample;
      a.row(0)[n] = test::stored<TypeParam>(large ? 100.0f : 0.5f);
    }
    this->expect_same_as_sorting(a.row(0), a.neurons, large_values);
  }
}

#if COREMATCHING_HAS_SIMD
TYPED_TEST(top_positive_of, packing_by_vector_is_packing_one_by_one) {
  std::mt19937 random(14);
  for (int round = 0; round < 300; ++round) {
    const auto a = test::any_activations<TypeParam>(random);
    const std::int32_t floor = round % 3 == 0 ? 0 : activation_key(a.row(0)[test::below(a.neurons, random)]);
    std::vector<std::int32_t> one_by_one(a.neurons + 8), vector(a.neurons + 8);
    const index size = detail::pack_keys_scalar(a.row(0), a.neurons, floor, one_by_one.data());
    ASSERT_EQ(detail::pack_keys_vector(a.row(0), a.neurons, floor, vector.data()), size);
    ASSERT_TRUE(std::equal(vector.begin(), vector.begin() + size, one_by_one.begin()));
  }
}
#endif

}  // namespace
}  // namespace corematching::select

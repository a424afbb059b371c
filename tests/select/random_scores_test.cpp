// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/random_scores.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <set>

namespace corematching::select {
namespace {

TEST(random_score, of_another_seed_is_another_draw_and_no_permutation_of_the_first) {
  std::set<std::int32_t> scores;
  constexpr int seeds = 8, places = 64;
  for (std::uint64_t seed = 0; seed < seeds; ++seed)
    for (std::int32_t place = 0; place < places; ++place) scores.insert(random_score(seed, 1, place));
  EXPECT_EQ(scores.size(), static_cast<std::size_t>(seeds * places));
}

TEST(random_score, before_all_layers_is_another_draw_than_in_any_layer) {
  std::set<std::int32_t> scores;
  for (index layer = before_all_layers; layer < 40; ++layer) scores.insert(random_score(3, layer, 17));
  EXPECT_EQ(scores.size(), 41u);
}

}  // namespace
}  // namespace corematching::select

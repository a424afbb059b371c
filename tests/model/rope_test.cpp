// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/llama/rope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace corematching {
namespace {

/// pow and the division by it are computed in binary32, each correct to a few units in the last place.
constexpr double relative_error = 4 * 0x1p-23;

double plain(double theta, index i, index head_dim) {
  return std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
}

rope_config llama3() {
  return {.theta = 500000,
          .scaling = rope_scaling::llama3,
          .factor = 8,
          .low_freq_factor = 1,
          .high_freq_factor = 4,
          .original_max_positions = 8192};
}

TEST(rotary_frequencies, fall_geometrically_from_one) {
  for (const double theta : {10000.0, 1e6})
    for (const index head_dim : {2, 6, 64, 128}) {
      const auto frequencies = rotary_frequencies({.theta = theta}, head_dim);
      ASSERT_EQ(std::ssize(frequencies), head_dim / 2);
      EXPECT_EQ(frequencies[0], 1.0f);
      for (index i = 0; i < head_dim / 2; ++i) {
        const double expected = plain(theta, i, head_dim);
        EXPECT_NEAR(frequencies[static_cast<std::size_t>(i)], expected, expected * relative_error);
      }
    }
}

TEST(rotary_frequencies, linear_scaling_divides_all_by_the_factor) {
  const auto frequencies = rotary_frequencies({.scaling = rope_scaling::linear, .factor = 2.5}, 64);
  for (index i = 0; i < 32; ++i) {
    const double expected = plain(10000, i, 64) / 2.5;
    EXPECT_NEAR(frequencies[static_cast<std::size_t>(i)], expected, expected * relative_error);
  }
}

TEST(rotary_frequencies, llama3_keeps_high_ones_divides_low_ones_and_blends_between) {
  const rope_config rope = llama3();
  const auto frequencies = rotary_frequencies(rope, 128);
  int kept = 0, divided = 0, blended = 0;
  for (index i = 0; i < 64; ++i) {
    const double frequency = plain(rope.theta, i, 128);
    // Turns within the original length, from high_freq_factor (kept) to low_freq_factor (divided).
    const double turns = 8192 * frequency / (2 * std::numbers::pi);
    const double share = std::fmin(1.0, std::fmax(0.0, (turns - 1) / (4 - 1)));
    const double expected = frequency * (share + (1 - share) / 8);
    EXPECT_NEAR(frequencies[static_cast<std::size_t>(i)], expected, expected * 4 * relative_error) << i;
    ++(share == 1 ? kept : share == 0 ? divided : blended);
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(divided, 0);
  EXPECT_GT(blended, 0);
}

}  // namespace
}  // namespace corematching

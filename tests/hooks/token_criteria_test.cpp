// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/token_criteria.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

#include "hooks/recorded_run.hpp"

namespace corematching {
namespace {

using namespace test;

TEST_F(core_matching_selects, image_tokens_by_the_attention_that_the_last_token_pays) {
  const recorded_run run(model,
                         {.match_layers = {1}, .criterion = token_criterion::attention, .keep = keep_five});
  const auto& in = run.attention;
  std::vector<double> scores(12);
  for (index head = 0; head < in.shape.heads; ++head) {
    const auto weights = support::twin::attention_weights(in.q, in.q.rows - 1, head, in.k, in.shape,
                                                          [](index) { return true; });
    for (std::size_t i = 0; i < scores.size(); ++i)
      scores[i] += weights[i + static_cast<std::size_t>(first_image)];
  }
  EXPECT_EQ(run.state.matches().at(0).kept_image_positions, run.defined_image_positions(scores));
}

TEST_F(core_matching_selects, image_tokens_by_their_projection_on_the_attention_output) {
  const recorded_run run(model,
                         {.match_layers = {1}, .criterion = token_criterion::projection, .keep = keep_five});
  const auto& in = run.attention;
  support::real_matrix parts(in.k.rows, in.shape.query_size()), output(1, in.shape.query_size());
  for (index head = 0; head < in.shape.heads; ++head) {
    const auto weights = support::twin::attention_weights(in.q, in.q.rows - 1, head, in.k, in.shape,
                                                          [](index) { return true; });
    const index shared = head / (in.shape.heads / in.shape.kv_heads);
    for (index key = 0; key < in.k.rows; ++key)
      for (index j = 0; j < in.shape.head_dim; ++j) {
        const index column = head * in.shape.head_dim + j;
        parts(key, column) =
            weights[static_cast<std::size_t>(key)] * in.v(key, shared * in.shape.head_dim + j);
        output(0, column) += parts(key, column);
      }
  }
  std::vector<double> scores;
  for (index key = first_image; key <= last_image; ++key) {
    double dot = 0, square = 0;
    for (index c = 0; c < output.cols; ++c) {
      dot += parts(key, c) * output(0, c);
      square += output(0, c) * output(0, c);
    }
    scores.push_back(dot / std::sqrt(square));
  }
  EXPECT_EQ(run.state.matches().at(0).kept_image_positions, run.defined_image_positions(scores));
}

TEST_F(core_matching_selects, random_tokens_by_seed_alone) {
  const auto kept = [&](std::uint64_t seed) {
    const recorded_run run(
        model, {.match_layers = {1}, .criterion = token_criterion::random, .keep = keep_five, .seed = seed});
    return run.state.matches().at(0).kept_image_positions;
  };
  EXPECT_EQ(kept(1), kept(1));
  EXPECT_EQ(kept(1).size(), 5u);
  std::map<std::int32_t, int> times;
  for (std::uint64_t seed = 0; seed < 24; ++seed)
    for (const std::int32_t position : kept(seed)) ++times[position];
  // Each of twelve tokens is among five in 10 of 24 runs on average, with a standard deviation of 2.4.
  EXPECT_EQ(times.size(), 12u);
  for (const auto& [position, count] : times) EXPECT_LE(count, 20) << position;
}

}  // namespace
}  // namespace corematching

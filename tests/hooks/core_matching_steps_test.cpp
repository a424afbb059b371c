// SPDX-License-Identifier: Apache-2.0
// Which neurons and which tokens CoreMatching chooses inside a running model, against the definitions applied
// to what another hook recorded.
#include "corematching/hooks/core_matching_steps.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "hooks/recorded_run.hpp"

namespace corematching {
namespace {

using namespace test;
using talk = support::conversation<support::test_backend>;

TEST_F(core_matching_selects, the_core_neurons_of_every_layer_from_its_activations) {
  for (const double rho : {0.05, 0.2, 1.0})
    for (const double beta : {0.1, 0.4, 0.9}) {
      const recorded_run run(model, {.sparse_tokens = false, .rho = rho, .beta = beta});
      for (index layer = 0; layer < model.config.layers; ++layer)
        EXPECT_EQ(run.core_neurons(layer),
                  run.defined_core_neurons(layer, rows_between(0, question_size - 1)));
    }
}

TEST_F(core_matching_selects, one_core_size_for_all_tokens_where_the_mean_counts) {
  const recorded_run run(model, {.sparse_tokens = false, .count = core_count::mean_count});
  for (index layer = 0; layer < model.config.layers; ++layer)
    EXPECT_EQ(run.core_neurons(layer), run.defined_core_neurons(layer, rows_between(0, question_size - 1)));
}

TEST_F(core_matching_selects, the_core_neurons_of_the_tokens_that_count) {
  indices text = rows_between(0, first_image - 1);
  std::ranges::copy(rows_between(last_image + 1, question_size - 1), std::back_inserter(text));
  for (const index ffn_rows : {1, 3, 1000}) {
    const recorded_run over_text(model, {.sparse_tokens = false, .count_over = counted_tokens::text},
                                 ffn_rows);
    const recorded_run over_image(model, {.sparse_tokens = false, .count_over = counted_tokens::image},
                                  ffn_rows);
    for (index layer = 0; layer < model.config.layers; ++layer) {
      EXPECT_EQ(over_text.core_neurons(layer), over_text.defined_core_neurons(layer, text));
      EXPECT_EQ(over_image.core_neurons(layer),
                over_image.defined_core_neurons(layer, rows_between(first_image, last_image)));
    }
  }
}

TEST_F(core_matching_selects, neurons_of_the_tokens_still_alive_behind_a_matching_layer) {
  const recorded_run run(model, {.match_layers = {1}, .keep = keep_five});
  EXPECT_EQ(run.recording.activations.at(2).rows, question_size - 12 + 5);
  for (index layer = 0; layer < model.config.layers; ++layer)
    EXPECT_EQ(run.core_neurons(layer),
              run.defined_core_neurons(layer, rows_between(0, run.recording.activations.at(layer).rows - 1)));
}

TEST_F(core_matching_selects, neurons_only_where_something_needs_them) {
  const recorded_run run(model, {.neuron_layers_begin = 2, .neuron_layers_end = 3, .match_layers = {1}});
  EXPECT_TRUE(run.core_neurons(0).empty());
  EXPECT_FALSE(run.core_neurons(1).empty()) << "tokens are matched with them";
  EXPECT_FALSE(run.core_neurons(2).empty()) << "decoding computes them";
  EXPECT_TRUE(run.core_neurons(3).empty());
}

TEST_F(core_matching_selects, image_tokens_by_the_neurons_they_share_with_the_sentence) {
  for (const auto& keep : {select::keep_options{}, select::keep_options{.strict = true}, keep_five,
                           select::keep_options{.rule = select::keep_rule::ratio, .ratio = 0.3}})
    for (const bool sparse_neurons : {false, true}) {
      const recorded_run run(model, {.sparse_neurons = sparse_neurons, .match_layers = {1}, .keep = keep});
      const auto scores = run.overlaps(1, run.defined_core_neurons(1, rows_between(0, question_size - 1)));
      ASSERT_EQ(run.state.matches().size(), 1u);
      const token_match& match = run.state.matches().front();
      EXPECT_EQ(match.kept_image_positions, run.defined_image_positions(scores));
      EXPECT_EQ(match.layer, 1);
      EXPECT_EQ(match.image_tokens, 12);
    }
}

TEST_F(core_matching_selects, image_tokens_by_the_neurons_they_share_with_the_anchor) {
  for (const index anchor : {-5, -1, 0, 2, 17}) {
    const recorded_run run(
        model,
        {.match_layers = {1}, .reference = reference_set::anchor, .anchor = anchor, .keep = keep_five});
    const auto scores = run.overlaps(1, run.activated(1, anchor < 0 ? question_size + anchor : anchor));
    EXPECT_EQ(run.state.matches().at(0).kept_image_positions, run.defined_image_positions(scores)) << anchor;
  }
}

TEST_F(core_matching_selects, the_same_anchor_after_tokens_in_front_of_it_were_dropped) {
  const recorded_run run(model, {.match_layers = {0, 2},
                                 .reference = reference_set::anchor,
                                 .anchor = -2,
                                 .keep = {.rule = select::keep_rule::ratio, .ratio = 0.5}});
  // Behind layer 0 the rows are three of text, six of the image, seven of text.
  const indices& first = run.state.matches().at(0).kept_image_positions;
  ASSERT_EQ(first.size(), 6u);
  indices expected;
  for (const std::int32_t place :
       slow::core_tokens(run.overlaps(2, run.activated(2, 16 - 2), 3, 8), run.state.config().keep))
    expected.push_back(first[static_cast<std::size_t>(place)]);
  EXPECT_EQ(run.state.matches().at(1).kept_image_positions, expected);
}

TEST_F(core_matching_selects, the_same_for_every_chunking) {
  const core_matching_config config{.match_layers = {1}};
  const recorded_run whole(model, config);
  for (const index ffn_rows : {1, 3, 4, 5, 7, 22}) {
    const recorded_run chunked(model, config, ffn_rows);
    EXPECT_EQ(chunked.state.matches().at(0).kept_positions, whole.state.matches().at(0).kept_positions);
    for (index layer = 0; layer < model.config.layers; ++layer)
      EXPECT_EQ(chunked.core_neurons(layer), whole.core_neurons(layer))
          << ffn_rows << " rows, layer " << layer;
  }
}

TEST_F(core_matching_selects, never_an_empty_set_never_a_dropped_token_and_always_the_text) {
  for (const auto& keep :
       {select::keep_options{}, select::keep_options{.rule = select::keep_rule::top_k, .count = 1},
        select::keep_options{.rule = select::keep_rule::ratio, .ratio = 0.7}})
    for (const token_criterion criterion :
         {token_criterion::overlap, token_criterion::rarity, token_criterion::contrast,
          token_criterion::attention, token_criterion::projection, token_criterion::random}) {
      const recorded_run run(model, {.match_layers = {0, 1, 2, 3}, .criterion = criterion, .keep = keep});
      indices before = rows_between(0, question_size - 1);
      ASSERT_EQ(run.state.matches().size(), 4u);
      for (const token_match& match : run.state.matches()) {
        EXPECT_FALSE(match.kept_image_positions.empty());
        EXPECT_TRUE(std::ranges::is_sorted(match.kept_positions));
        EXPECT_TRUE(std::ranges::includes(before, match.kept_positions)) << "a dropped token came back";
        for (index i = 0; i < question_size; ++i) {
          const bool image = i >= first_image && i <= last_image;
          EXPECT_TRUE(image || std::ranges::binary_search(match.kept_positions, i))
              << "text token " << i << " is gone";
        }
        before = match.kept_positions;
      }
    }
}

TEST_F(core_matching_selects, more_neurons_with_a_larger_beta) {
  indices smaller;
  for (const double beta : {0.05, 0.2, 0.4, 0.8}) {
    const recorded_run run(model, {.sparse_tokens = false, .beta = beta});
    const indices larger = run.core_neurons(2);
    EXPECT_TRUE(std::ranges::includes(larger, smaller));
    EXPECT_LE(std::ssize(larger), static_cast<index>(beta * 75));
    smaller = larger;
  }
}

TEST_F(core_matching_selects, afresh_after_a_second_prompt_which_adds_to_the_frequencies) {
  talk t(model, {.sparse_tokens = false});
  t.prompt("tttttttttt", 1);
  const auto first = support::downloaded(model.be, t.state.core_neurons(1));
  t.decode(3);
  EXPECT_EQ(support::downloaded(model.be, t.state.core_neurons(1)), first) << "decoding changes nothing";
  t.prompt("tttttttttttttttttttt", 9);
  const auto second = support::downloaded(model.be, t.state.core_neurons(1));
  EXPECT_NE(second, first);
  talk other(model, {.sparse_tokens = false});
  other.prompt("tttttttttttttttttttt", 9);
  EXPECT_NE(support::downloaded(model.be, other.state.core_neurons(1)), second)
      << "the first prompt counts too";
}

TEST_F(core_matching_selects, nothing_in_a_prompt_without_images) {
  const recorded_run run(model, {.match_layers = {1}}, 1000, "ttttttt");
  EXPECT_TRUE(run.state.matches().empty());
  EXPECT_EQ(run.recording.activations.at(3).rows, 7);
}

TEST_F(core_matching_selects, and_measures_the_time_that_it_takes) {
  const recorded_run run(model, {.match_layers = {1}});
  EXPECT_GT(run.state.selection_seconds(), 0);
  EXPECT_LT(run.state.selection_seconds(), 60);
}

}  // namespace
}  // namespace corematching

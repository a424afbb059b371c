// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/core_matching_config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "support/error_text.hpp"

namespace corematching {
namespace {

using support::expect_parts;

std::string refusal(const core_matching_config& config, index layers = 32, index neurons = 100) {
  return support::error_text([&] { config.validate(layers, neurons); });
}

TEST(core_matching_config, the_defaults_are_the_papers) {
  const core_matching_config config;
  EXPECT_NO_THROW(config.validate(32, 11008));
  EXPECT_EQ(config.rho, 0.2);
  EXPECT_EQ(config.beta, 0.4);
  for (index layer = 0; layer < 32; ++layer) {
    EXPECT_EQ(config.matches_at(layer, 32), layer == 10) << layer;
    EXPECT_TRUE(config.decodes_sparsely(layer, 32));
  }
}

TEST(core_matching_config, the_default_matching_layer_is_ten_thirty_seconds_of_the_depth) {
  for (index layers = 1; layers <= 200; ++layers)
    EXPECT_EQ(core_matching_config::default_match_layer(layers),
              static_cast<index>(std::lround(10.0 * static_cast<double>(layers) / 32)))
        << layers << " layers";
}

TEST(core_matching_config, named_matching_layers_replace_the_default) {
  const core_matching_config config{.match_layers = {2, 5}};
  for (index layer = 0; layer < 32; ++layer)
    EXPECT_EQ(config.matches_at(layer, 32), layer == 2 || layer == 5) << layer;
}

TEST(core_matching_config, nothing_matches_where_tokens_are_not_sparse) {
  const core_matching_config config{.sparse_tokens = false, .match_layers = {2}};
  EXPECT_FALSE(config.matches_at(2, 32));
}

TEST(core_matching_config, decodes_sparsely_in_its_layers_alone_and_not_with_every_neuron) {
  const core_matching_config config{.neuron_layers_begin = 6, .neuron_layers_end = 27};
  for (index layer = 0; layer < 32; ++layer)
    EXPECT_EQ(config.decodes_sparsely(layer, 32), layer >= 6 && layer < 27) << layer;
  EXPECT_FALSE((core_matching_config{.sparse_neurons = false}.decodes_sparsely(3, 32)));
  EXPECT_FALSE((core_matching_config{.beta = 1}.decodes_sparsely(3, 32)));
}

TEST(core_matching_config, refuses_shares_outside_their_range) {
  for (const double share : {0.0, -0.1, 1.0001, static_cast<double>(NAN)}) {
    expect_parts(refusal({.rho = share}), "rho", "(0, 1]");
    expect_parts(refusal({.beta = share}), "beta", "(0, 1]");
  }
  EXPECT_NO_THROW((core_matching_config{.rho = 1, .beta = 1}.validate(4, 10)));
}

TEST(core_matching_config, refuses_a_beta_that_selects_no_neuron) {
  expect_parts(refusal({.beta = 0.009}), "beta", "0.009", "none of 100");
  EXPECT_NO_THROW((core_matching_config{.beta = 0.01}.validate(32, 100)));
}

TEST(core_matching_config, refuses_neuron_layers_that_the_model_does_not_have) {
  expect_parts(refusal({.neuron_layers_begin = -1}), "neuron layers -1..32", "0..32");
  expect_parts(refusal({.neuron_layers_begin = 32}), "neuron layers 32..32");
  expect_parts(refusal({.neuron_layers_begin = 5, .neuron_layers_end = 5}), "neuron layers 5..5");
  expect_parts(refusal({.neuron_layers_end = 33}), "neuron layers 0..33", "0..32");
}

TEST(core_matching_config, refuses_matching_layers_that_do_not_exist_or_do_not_ascend) {
  expect_parts(refusal({.match_layers = {32}}), "matching layer 32", "0..31");
  expect_parts(refusal({.match_layers = {-1}}), "matching layer -1", "0..31");
  expect_parts(refusal({.match_layers = {3, 3}}), "ascend");
  expect_parts(refusal({.match_layers = {3, 1}}), "ascend");
}

TEST(core_matching_config, refuses_contiguous_positions_where_dropped_tokens_stay_in_a_cache) {
  for (const pruning_mode mode : {pruning_mode::later_layers, pruning_mode::zero_in_place})
    expect_parts(refusal({.pruning = mode, .positions = position_policy::contiguous}), "contiguous",
                 "everywhere");
  EXPECT_NO_THROW((core_matching_config{.positions = position_policy::contiguous}.validate(32, 100)));
}

TEST(core_matching_config, matches_with_what_suits_the_criterion_unless_told_otherwise) {
  using enum token_criterion;
  using enum reference_set;
  EXPECT_EQ(core_matching_config{.criterion = overlap}.matched_with(), sentence);
  EXPECT_EQ(core_matching_config{.criterion = rarity}.matched_with(), question);
  EXPECT_EQ(core_matching_config{.criterion = contrast}.matched_with(), anchor);
  EXPECT_EQ((core_matching_config{.criterion = rarity, .reference = sentence}.matched_with()), sentence);
  EXPECT_FALSE(core_matching_config{.criterion = attention}.is_matched_with(sentence));
  EXPECT_FALSE((core_matching_config{.sparse_tokens = false}.is_matched_with(sentence)));
}

TEST(core_matching_config, refuses_references_that_the_criterion_does_not_have) {
  using enum token_criterion;
  using enum reference_set;
  expect_parts(refusal({.criterion = overlap, .reference = question}), "overlap", "question");
  expect_parts(refusal({.criterion = overlap, .reference = text}), "overlap", "text");
  expect_parts(refusal({.criterion = rarity, .reference = text}), "rarity", "text");
  expect_parts(refusal({.criterion = contrast, .reference = sentence}), "contrast", "sentence");
  expect_parts(refusal({.criterion = contrast, .reference = question}), "contrast", "question");
  for (const token_criterion any : {overlap, rarity, contrast})
    EXPECT_NO_THROW((core_matching_config{.criterion = any, .reference = anchor}.validate(32, 100)));
  EXPECT_NO_THROW((core_matching_config{.criterion = rarity, .reference = sentence}.validate(32, 100)));
  EXPECT_NO_THROW((core_matching_config{.criterion = contrast, .reference = text}.validate(32, 100)));
  EXPECT_NO_THROW((core_matching_config{.criterion = random, .reference = text}.validate(32, 100)))
      << "which does not read it";
}

TEST(core_matching_config, refuses_keep_options_out_of_range) {
  expect_parts(refusal({.keep = {.rule = select::keep_rule::top_k, .count = 0}}), "top_k");
  expect_parts(refusal({.keep = {.rule = select::keep_rule::ratio, .ratio = 0}}), "ratio");
  expect_parts(refusal({.keep = {.min_tokens = 0}}), "min_tokens");
  expect_parts(refusal({.keep = {.min_tokens = 3, .max_tokens = 2}}), "max_tokens");
}

}  // namespace
}  // namespace corematching

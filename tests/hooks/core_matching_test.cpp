// SPDX-License-Identifier: Apache-2.0
// What CoreMatching changes in a model's results, and what it must leave alone. Every run is repeated by a
// twin that drops nothing (support/tiny_llama.hpp).
#include "corematching/hooks/core_matching.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/backend_data.hpp"
#include "support/conversation.hpp"

namespace corematching {
namespace {

using tiny = support::tiny_llama<support::test_backend>;
using talk = support::conversation<support::test_backend>;

constexpr const char* question = "tttiiiiiiiiiiiittttttt";
constexpr index question_size = 22;
constexpr select::keep_options keep_five = {.rule = select::keep_rule::top_k, .count = 5};

class core_matching_runs : public testing::Test {
 protected:
  tiny model;
  double error = support::logit_error(model.config);

  void expect_prompt(talk& t, const char* letters, unsigned seed) {
    const auto logits = t.prompt(letters, seed);
    support::expect_logits(logits, t.expected(), error);
  }
  void expect_steps(talk& t, const std::vector<std::int32_t>& ids) {
    for (const std::int32_t id : ids) {
      const auto logits = t.decode(id);
      support::expect_logits(logits, t.expected(), error);
    }
  }
  /// A prompt and a few steps, each against the twin.
  void expect_twin(const core_matching_config& config) {
    talk t(model, config);
    expect_prompt(t, question, 1);
    expect_steps(t, {5, 17, 3});
  }
};

TEST_F(core_matching_runs, with_every_neuron_and_every_token_equal_dense_ones_bit_for_bit) {
  talk t(model, {.beta = 1, .keep = {.rule = select::keep_rule::top_k, .count = 1000}});
  auto dense = model.model.start(model.be, 8);
  auto x = support::embedded(model, support::random_ids(question_size, model.config.vocab_size, 1));
  EXPECT_EQ(t.prompt(question), model.model.prefill(model.be, dense, x.view(), 1000));
  for (const std::int32_t id : {5, 17, 3, 60, 0})
    EXPECT_EQ(t.decode(id), model.model.decode(model.be, dense, id));
  EXPECT_EQ(t.sequence.cache.bytes(), dense.cache.bytes());
}

TEST_F(core_matching_runs, compute_all_of_a_layer_in_which_nothing_fires_and_match_nothing_there) {
  auto tensors = support::random_tensors(model.config, 1);
  for (double& value : tensors.at("model.layers.1.mlp.up_proj.weight").values) value = 0;
  tiny silent(model.config, tensors);
  talk t(silent, {.match_layers = {1, 2}, .keep = keep_five});
  expect_prompt(t, question, 1);
  expect_steps(t, {5});
  EXPECT_EQ(t.state.silent_layers(), std::vector<index>{1});
  EXPECT_TRUE(t.state.core_neurons(1).empty());
  EXPECT_EQ(t.state.decode_neurons(1), std::nullopt);
  ASSERT_EQ(t.state.matches().size(), 1u);
  EXPECT_EQ(t.state.matches()[0].layer, 2);
}

TEST_F(core_matching_runs, are_dense_where_the_share_of_the_mean_is_no_neuron) {
  talk t(model, {.rho = 1e-6, .count = core_count::mean_count, .match_layers = {1}, .keep = keep_five});
  auto dense = model.model.start(model.be, 8);
  auto x = support::embedded(model, support::random_ids(question_size, model.config.vocab_size, 1));
  EXPECT_EQ(t.prompt(question), model.model.prefill(model.be, dense, x.view(), 1000));
  EXPECT_EQ(t.decode(5), model.model.decode(model.be, dense, 5));
  EXPECT_EQ(std::ssize(t.state.silent_layers()), model.config.layers);
}

TEST_F(core_matching_runs, without_sparsity_equal_the_twin) {
  expect_twin({.sparse_neurons = false, .sparse_tokens = false});
}

TEST_F(core_matching_runs, decode_as_if_the_other_neurons_were_silent) {
  expect_twin({.sparse_tokens = false});
  expect_twin({.sparse_tokens = false, .beta = 0.1, .neuron_layers_begin = 1, .neuron_layers_end = 3});
}

TEST_F(core_matching_runs, pruned_everywhere_equal_dense_ones_that_mask_the_dropped_tokens) {
  for (const index layer : {0, 1, 3}) {
    SCOPED_TRACE(layer);
    expect_twin({.sparse_neurons = false, .match_layers = {layer}, .keep = keep_five});
    expect_twin({.match_layers = {layer}, .keep = keep_five});
  }
}

TEST_F(core_matching_runs, matching_at_several_layers_mask_more_at_each) {
  const select::keep_options half = {.rule = select::keep_rule::ratio, .ratio = 0.6};
  expect_twin({.match_layers = {0, 2}, .keep = half});
  expect_twin({.match_layers = {0, 1, 2, 3}, .keep = half});
}

TEST_F(core_matching_runs, pruned_in_later_layers_still_see_dropped_tokens_in_earlier_ones) {
  expect_twin({.match_layers = {1}, .keep = keep_five, .pruning = pruning_mode::later_layers});
  expect_twin({.match_layers = {0, 2}, .keep = keep_five, .pruning = pruning_mode::later_layers});
}

TEST_F(core_matching_runs, zeroed_in_place_see_zeros_once_the_prompt_is_over) {
  expect_twin({.match_layers = {1}, .keep = keep_five, .pruning = pruning_mode::zero_in_place});
  expect_twin({.match_layers = {1, 2}, .keep = keep_five, .pruning = pruning_mode::zero_in_place});
}

TEST_F(core_matching_runs, with_contiguous_positions_see_the_survivors_side_by_side) {
  for (const std::vector<index>& layers : {std::vector<index>{0}, {1}, {3}, {0, 2}})
    expect_twin({.match_layers = layers,
                 .keep = {.rule = select::keep_rule::ratio, .ratio = 0.5},
                 .positions = position_policy::contiguous});
}

TEST_F(core_matching_runs, prune_with_every_criterion) {
  for (const token_criterion criterion :
       {token_criterion::rarity, token_criterion::contrast, token_criterion::attention,
        token_criterion::projection, token_criterion::random})
    expect_twin({.match_layers = {1}, .criterion = criterion, .keep = keep_five});
}

TEST_F(core_matching_runs, without_tokens_that_never_entered_mask_them_in_every_layer) {
  const std::vector<std::int32_t> left_out{3, 5, 6, 9, 14};
  for (const bool tokens : {false, true})
    for (const pruning_mode mode :
         {pruning_mode::everywhere, pruning_mode::later_layers, pruning_mode::zero_in_place}) {
      SCOPED_TRACE(testing::Message() << tokens << static_cast<int>(mode));
      talk t(model, {.sparse_tokens = tokens,
                     .match_layers = {1},
                     .criterion = token_criterion::rarity,
                     .keep = keep_five,
                     .pruning = mode});
      const work_counters before = model.be.counters();
      const auto logits = t.prompt(question, 1, 1000, left_out);
      EXPECT_EQ(model.be.counters() - before, t.formula());
      support::expect_logits(logits, t.expected(), error);
      EXPECT_EQ(t.alive_in(0), question_size - 5);
      EXPECT_EQ(t.sequence.next_position, question_size) << "those behind them keep their positions";
      for (const token_match& match : t.state.matches())
        for (const std::int32_t position : left_out)
          EXPECT_FALSE(std::ranges::binary_search(match.kept_positions, position));
      expect_steps(t, {5, 17});
      expect_prompt(t, "tttt", 3);
    }
}

TEST_F(core_matching_runs, without_tokens_that_never_entered_give_no_memory_to_them) {
  const auto row_bytes =
      2 * static_cast<std::size_t>(model.config.kv_heads * model.config.head_dim) * sizeof(float);
  talk t(model, {.sparse_tokens = false}, 0);
  t.prompt(question, 1, 1000, {4, 5});
  for (index layer = 0; layer < model.config.layers; ++layer) {
    EXPECT_EQ(t.sequence.cache[layer].length(), question_size - 2);
    EXPECT_EQ(t.sequence.cache[layer].bytes(), static_cast<std::size_t>(question_size - 2) * row_bytes);
  }
}

TEST_F(core_matching_runs, go_on_with_a_second_prompt_behind_dropped_tokens) {
  for (const position_policy positions : {position_policy::original, position_policy::contiguous}) {
    talk t(model, {.match_layers = {1}, .keep = keep_five, .positions = positions});
    t.prompt(question, 1);
    t.decode(9);
    expect_prompt(t, "tiiiiiiiitttttt", 2);
    EXPECT_EQ(t.state.matches().size(), 1u);
    expect_steps(t, {4, 40});
  }
}

TEST_F(core_matching_runs, go_on_with_a_second_prompt_without_images) {
  for (const pruning_mode mode :
       {pruning_mode::everywhere, pruning_mode::later_layers, pruning_mode::zero_in_place}) {
    talk t(model, {.match_layers = {1}, .keep = keep_five, .pruning = mode});
    t.prompt(question, 1);
    t.decode(9);
    expect_prompt(t, "tttt", 3);
    EXPECT_TRUE(t.state.matches().empty());
    expect_steps(t, {30});
  }
}

TEST_F(core_matching_runs, interleaved_on_one_model_do_not_influence_each_other) {
  const core_matching_config config{.match_layers = {1}, .keep = keep_five};
  const auto alone = [&](unsigned seed) {
    talk t(model, config);
    std::vector<std::vector<float>> logits = {t.prompt(question, seed)};
    for (const std::int32_t id : {5, 17}) logits.push_back(t.decode(id));
    return logits;
  };
  const auto first = alone(1), second = alone(2);
  talk a(model, config), b(model, config);
  EXPECT_EQ(a.prompt(question, 1), first[0]);
  EXPECT_EQ(b.prompt(question, 2), second[0]);
  EXPECT_EQ(a.decode(5), first[1]);
  EXPECT_EQ(b.decode(5), second[1]);
  EXPECT_EQ(b.decode(17), second[2]);
  EXPECT_EQ(a.decode(17), first[2]);
}

TEST_F(core_matching_runs, cost_what_the_formulas_say) {
  using enum pruning_mode;
  for (const pruning_mode mode : {everywhere, later_layers, zero_in_place})
    for (const bool neurons : {false, true})
      for (const bool tokens : {false, true}) {
        SCOPED_TRACE(testing::Message() << neurons << tokens << static_cast<int>(mode));
        talk t(model, {.sparse_neurons = neurons,
                       .sparse_tokens = tokens,
                       .neuron_layers_begin = 1,
                       .match_layers = {1},
                       .keep = keep_five,
                       .pruning = mode});
        const auto expect_formula = [&](auto&& work) {
          const work_counters before = model.be.counters();
          work();
          EXPECT_EQ(model.be.counters() - before, t.formula());
        };
        expect_formula([&] { t.prompt(question); });
        for (const std::int32_t id : {1, 2, 3}) expect_formula([&] { t.decode(id); });
        expect_formula([&] { t.prompt("tiiiiiiiitttttt"); });
      }
}

TEST_F(core_matching_runs, sparse_steps_cost_less_than_dense_ones) {
  talk sparse(model, {.match_layers = {1}, .keep = keep_five}),
      dense(model, {.sparse_tokens = false, .beta = 1});
  for (talk* t : {&sparse, &dense}) {
    t->prompt(question);
    t->decode(1);
  }
  EXPECT_LT(sparse.formula().flops, dense.formula().flops);
  EXPECT_LT(sparse.formula().weight_bytes, dense.formula().weight_bytes);
  EXPECT_LT(sparse.formula().kv_bytes, dense.formula().kv_bytes);
}

TEST_F(core_matching_runs, give_the_memory_of_dropped_tokens_back_in_every_layer) {
  const index headroom = 3;
  const auto row_bytes =
      2 * static_cast<std::size_t>(model.config.kv_heads * model.config.head_dim) * sizeof(float);
  talk t(model, {.match_layers = {1}, .keep = keep_five}, headroom);
  t.prompt(question);
  const index kept = question_size - 12 + 5;
  EXPECT_EQ(t.survivors(), kept);
  for (index layer = 0; layer < model.config.layers; ++layer) {
    EXPECT_EQ(t.sequence.cache[layer].length(), kept);
    EXPECT_EQ(t.sequence.cache[layer].bytes(), static_cast<std::size_t>(kept) * row_bytes);
    EXPECT_EQ(t.sequence.cache[layer].capacity_bytes(),
              static_cast<std::size_t>(kept + headroom) * row_bytes);
  }
}

TEST_F(core_matching_runs, pruned_in_later_layers_keep_the_earlier_caches_whole) {
  talk t(model, {.match_layers = {1}, .keep = keep_five, .pruning = pruning_mode::later_layers});
  t.prompt(question);
  for (index layer = 0; layer < model.config.layers; ++layer)
    EXPECT_EQ(t.sequence.cache[layer].length(), layer <= 1 ? question_size : question_size - 12 + 5) << layer;
}

TEST_F(core_matching_runs, zeroed_in_place_have_the_logits_and_the_memory_of_dense_ones) {
  talk zeroed(model, {.match_layers = {1}, .keep = keep_five, .pruning = pruning_mode::zero_in_place});
  talk dense(model, {.sparse_tokens = false});
  EXPECT_EQ(zeroed.prompt(question), dense.prompt(question));
  EXPECT_EQ(zeroed.sequence.cache.bytes(), dense.sequence.cache.bytes());
  const auto& kept = zeroed.state.matches().at(0).kept_positions;
  EXPECT_EQ(std::ssize(kept), question_size - 12 + 5);
  for (std::int32_t i = 0; i < question_size; ++i)
    for (const auto& rows : {zeroed.sequence.cache[1].keys(), zeroed.sequence.cache[1].values()}) {
      const auto row = support::loaded(model.be, rows.middle_rows(i, 1)).values;
      const bool zero = std::ranges::all_of(row, [](double value) { return value == 0; });
      EXPECT_NE(zero, std::ranges::binary_search(kept, i)) << "token " << i;
    }
}

TEST_F(core_matching_runs, renumbered_at_the_first_layer_cache_what_a_run_over_the_survivors_does) {
  // Keys and values of the first layer depend on a token and its position alone, so there, and only there,
  // the cache must be that of a prompt which never held the dropped tokens.
  talk t(model, {.match_layers = {0}, .keep = keep_five, .positions = position_policy::contiguous});
  t.prompt(question, 1);
  const auto ids = support::random_ids(question_size, model.config.vocab_size, 1);
  std::vector<std::int32_t> kept;
  for (const std::int32_t position : t.state.matches().at(0).kept_positions)
    kept.push_back(ids[static_cast<std::size_t>(position)]);
  auto fresh = model.model.start(model.be, 0);
  auto x = support::embedded(model, kept);
  model.model.prefill(model.be, fresh, x.view(), 1000);
  EXPECT_EQ(t.sequence.next_position, fresh.next_position);
  using rows = kv_layer<support::test_backend>::view;
  const auto expect_same = [&](const rows& actual, const rows& expected) {
    support::expect_near(support::loaded(model.be, actual), support::loaded(model.be, expected), error);
  };
  expect_same(t.sequence.cache[0].keys(), fresh.cache[0].keys());
  expect_same(t.sequence.cache[0].values(), fresh.cache[0].values());
}

TEST_F(core_matching_runs, keep_original_positions_unless_asked_otherwise) {
  talk original(model, {.match_layers = {1}, .keep = keep_five});
  original.prompt(question);
  EXPECT_EQ(original.sequence.next_position, question_size);
  talk contiguous(model, {.match_layers = {1}, .keep = keep_five, .positions = position_policy::contiguous});
  contiguous.prompt(question);
  EXPECT_EQ(contiguous.sequence.next_position, question_size - 12 + 5);
}

TEST_F(core_matching_runs, matched_in_the_last_layer_have_the_logits_of_dense_ones_and_a_smaller_cache) {
  talk t(model, {.match_layers = {3}, .keep = keep_five}), dense(model, {.sparse_tokens = false});
  EXPECT_EQ(t.prompt(question), dense.prompt(question));
  EXPECT_LT(t.sequence.cache.bytes(), dense.sequence.cache.bytes());
}

}  // namespace
}  // namespace corematching

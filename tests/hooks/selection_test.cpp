// SPDX-License-Identifier: Apache-2.0
// Which neurons and which tokens CoreMatching chooses inside a running model, against the definitions applied
// to what another hook recorded.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "select/slow_selectors.hpp"
#include "support/conversation.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

namespace slow = select::slow;
using test_backend = cpu::backend;
using tiny = support::tiny_llama<test_backend>;
using talk = support::conversation<test_backend>;
using state_of_run = core_matching<test_backend>;
using indices = std::vector<std::int32_t>;

constexpr const char* question = "tttiiiiiiiiiiiittttttt";
constexpr index question_size = 22;
constexpr index first_image = 3, last_image = 14;
constexpr select::keep_options keep_five = {.rule = select::keep_rule::top_k, .count = 5};

/// Keeps a binary64 copy of what attention saw in one layer.
struct attention_spy {
  using attends = sites<site::attention>;
  struct sight {
    support::real_matrix q, k, v;
    attention_shape shape;
  };
  index layer;
  sight* seen;

  void operator()(site::attention, const layer_context<test_backend>& at,
                  const attention_inputs<test_backend>& in) const {
    if (at.layer == layer) *seen = {copy(in.queries), copy(in.keys), copy(in.values), in.shape};
  }
  static support::real_matrix copy(matrix_view<const float> m) {
    support::real_matrix result(m.rows, m.cols);
    for (index i = 0; i < m.rows; ++i)
      for (index j = 0; j < m.cols; ++j) result(i, j) = double{m.row(i)[j]};
    return result;
  }
};

/// One prompt with everything recorded that a selection may look at.
struct recorded_run {
  recorded_run(tiny& model, const core_matching_config& config, index ffn_rows = 1000,
               const char* letters = question)
      : state(model.be, config, model.config.layers, shape_of(model.config)) {
    const auto kinds = support::kinds_of(letters);
    state.begin_prompt(0, kinds);
    auto sequence = model.model.start(model.be, 0);
    auto x = support::embedded(model, support::random_ids(std::ssize(kinds), model.config.vocab_size, 1));
    const index match = state.config().match_layers.empty() ? 0 : state.config().match_layers.front();
    with_prefill_hook(state, [&](auto hook) {
      chain seen(attention_spy{match, &attention},
                 chain(record_hook<test_backend>(recording), std::move(hook)));
      return model.model.prefill(model.be, sequence, x.view(), ffn_rows, seen);
    });
  }

  const float* activation(index layer, index row) const {
    const recorded_matrix& m = recording.activations.at(layer);
    return m.values.data() + row * m.cols;
  }
  index neurons() const { return recording.activations.at(0).cols; }
  indices core_neurons(index layer) const {
    const auto set = state.core_neurons(layer);
    return {set.begin(), set.end()};
  }

  /// C_ρ^β by definition, counted over `rows` of a layer.
  indices defined_core_neurons(index layer, const indices& rows) const {
    const core_matching_config& config = state.config();
    double mean = 0;
    for (const std::int32_t row : rows) mean += static_cast<double>(activated(layer, row).size());
    mean /= static_cast<double>(rows.size());
    std::vector<std::int32_t> f(static_cast<std::size_t>(neurons()));
    for (const std::int32_t row : rows) {
      const auto size = static_cast<double>(activated(layer, row).size());
      const auto k = config.count == core_count::mean_count
                         ? static_cast<index>(std::floor(config.rho * mean))
                         : std::max<index>(size > 0, static_cast<index>(std::floor(config.rho * size)));
      for (const std::int32_t n : slow::largest_positive(activation(layer, row), neurons(), k))
        ++f[static_cast<std::size_t>(n)];
    }
    return slow::core_neurons(f, config.beta);
  }

  indices activated(index layer, index row) const {
    return slow::activated(activation(layer, row), neurons());
  }

  /// Positions of the image tokens that the rule keeps by the scores of rows first_image..last_image.
  template <class Score>
  indices defined_image_positions(const std::vector<Score>& scores) const {
    indices kept = slow::core_tokens(scores, state.config().keep);
    for (std::int32_t& position : kept) position += static_cast<std::int32_t>(first_image);
    return kept;
  }

  std::vector<std::int32_t> overlaps(index layer, const indices& reference, index first = first_image,
                                     index last = last_image) const {
    std::vector<std::int32_t> scores;
    for (index row = first; row <= last; ++row) {
      indices common;
      std::ranges::set_intersection(activated(layer, row), reference, std::back_inserter(common));
      scores.push_back(static_cast<std::int32_t>(common.size()));
    }
    return scores;
  }

  state_of_run state;
  layer_recording recording;
  attention_spy::sight attention;
};

indices rows_between(index first, index last) {
  indices rows(static_cast<std::size_t>(last - first + 1));
  std::iota(rows.begin(), rows.end(), static_cast<std::int32_t>(first));
  return rows;
}

class core_matching_selects : public testing::Test {
 protected:
  tiny model;
};

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
    for (const token_criterion criterion : {token_criterion::overlap, token_criterion::attention,
                                            token_criterion::projection, token_criterion::random}) {
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

class core_matching_refuses : public testing::Test {
 protected:
  tiny model;

  std::string refusal(const core_matching_config& config, const char* letters, index ffn_rows = 1000) {
    return support::error_text([&] { talk(model, config).prompt(letters, 1, ffn_rows); });
  }
};

TEST_F(core_matching_refuses, a_config_that_does_not_fit_the_model) {
  support::expect_parts(refusal({.rho = 0}, "t"), "rho");
  support::expect_parts(refusal({.match_layers = {4}}, "t"), "matching layer 4", "0..3");
  support::expect_parts(refusal({.neuron_layers_end = 5}, "t"), "neuron layers 0..5");
  support::expect_parts(refusal({.beta = 0.01}, "t"), "none of 75");
}

TEST_F(core_matching_refuses, a_prompt_that_ends_with_an_image_token_where_tokens_are_dropped) {
  support::expect_parts(refusal({}, "ttii"), "ends with an image token");
  EXPECT_NO_THROW(talk(model, {.sparse_tokens = false}).prompt("ttii"));
}

TEST_F(core_matching_refuses, an_empty_prompt) {
  support::expect_parts(refusal({}, ""), "prompt is empty");
}

TEST_F(core_matching_refuses, an_anchor_outside_the_prompt_or_on_an_image) {
  const auto anchored = [](index anchor) {
    return core_matching_config{.reference = reference_set::anchor, .anchor = anchor};
  };
  support::expect_parts(refusal(anchored(-5), "tiit"), "anchor", "-5", "4 tokens");
  support::expect_parts(refusal(anchored(4), "tiit"), "anchor", "4 tokens");
  support::expect_parts(refusal(anchored(-2), "tiit"), "anchor", "-2", "image");
  EXPECT_NO_THROW(talk(model, anchored(-5)).prompt("ttt")) << "nothing is matched where there is no image";
}

TEST_F(core_matching_refuses, to_count_tokens_that_the_conversation_does_not_have) {
  support::expect_parts(refusal({.count_over = counted_tokens::image}, "ttt"), "image tokens", "none");
  support::expect_parts(refusal({.sparse_tokens = false, .count_over = counted_tokens::text}, "iii"),
                        "text tokens", "none");
  talk t(model, {.count_over = counted_tokens::image});
  t.prompt("tiiiitt");
  EXPECT_NO_THROW(t.prompt("ttt")) << "those of the first prompt go on counting";
}

TEST_F(core_matching_refuses, the_mean_count_of_a_prompt_in_parts) {
  support::expect_parts(refusal({.count = core_count::mean_count}, "tttttt", 3), "mean_count", "at least 6");
}

TEST_F(core_matching_refuses, activations_that_are_not_finite_and_names_layer_token_and_neuron) {
  auto tensors = support::random_tensors(model.config, 1);
  for (double& value : tensors.at("model.layers.2.mlp.up_proj.weight").values) value *= 1e37;
  for (double& value : tensors.at("model.layers.2.mlp.gate_proj.weight").values) value *= 1e37;
  tiny broken(model.config, tensors);
  support::expect_parts(support::error_text([&] { talk(broken, {}).prompt("tttttt"); }),
                        "layer 2: ", "token ", "neuron ");
}

TEST_F(core_matching_refuses, a_layer_in_which_no_neuron_is_activated) {
  auto tensors = support::random_tensors(model.config, 1);
  for (double& value : tensors.at("model.layers.3.mlp.up_proj.weight").values) value = 0;
  tiny silent(model.config, tensors);
  support::expect_parts(support::error_text([&] { talk(silent, {}).prompt("tttttt"); }), "layer 3",
                        "no core neurons");
}

TEST(chain, tells_the_first_hook_first) {
  tiny model;
  std::vector<int> calls;
  const auto one = progress_hook([&](index) { calls.push_back(1); });
  const auto two = progress_hook([&](index) { calls.push_back(2); });
  chain both(one, two);
  auto sequence = model.model.start(model.be, 0);
  auto x = support::embedded(model, {1, 2});
  model.model.prefill(model.be, sequence, x.view(), 1000, both);
  EXPECT_EQ(calls, (std::vector<int>{1, 2, 1, 2, 1, 2, 1, 2}));
}

TEST(chain, attends_what_either_attends_and_the_one_that_is_asked_answers) {
  using prefill = state_of_run::prefill_hook;
  using recorder = record_hook<test_backend>;
  using either = chain<recorder, prefill>;
  static_assert(attends<either, site::ffn_activation> && attends<either, site::keep_tokens>);
  static_assert(attends<either, site::layer_output> && !attends<either, site::ffn_neurons>);
  tiny model;
  for (const bool recorder_first : {true, false}) {
    state_of_run state(model.be, {.match_layers = {1}, .keep = keep_five}, model.config.layers,
                       shape_of(model.config));
    const auto kinds = support::kinds_of(question);
    state.begin_prompt(0, kinds);
    layer_recording recording;
    auto sequence = model.model.start(model.be, 0);
    auto x = support::embedded(model, support::random_ids(question_size, model.config.vocab_size, 1));
    if (recorder_first) {
      model.model.prefill(model.be, sequence, x.view(), 1000, chain(recorder(recording), prefill(state)));
    } else {
      model.model.prefill(model.be, sequence, x.view(), 1000, chain(prefill(state), recorder(recording)));
    }
    EXPECT_EQ(recording.outputs.at(1).rows, question_size) << "outputs are told before anything is dropped";
    EXPECT_EQ(recording.outputs.at(2).rows, question_size - 12 + 5);
  }
}

TEST(progress_hook, reports_each_layer_when_it_is_done) {
  tiny model;
  std::vector<index> done;
  auto sequence = model.model.start(model.be, 0);
  auto x = support::embedded(model, {1, 2});
  model.model.prefill(model.be, sequence, x.view(), 1000,
                      progress_hook([&](index layers) { done.push_back(layers); }));
  EXPECT_EQ(done, (std::vector<index>{1, 2, 3, 4}));
}

TEST(record_hook, holds_one_pass_whatever_its_chunks) {
  tiny model;
  layer_recording whole, parts;
  for (const auto& [recording, ffn_rows] : {std::pair{&whole, index{1000}}, std::pair{&parts, index{6}}})
    for (int pass = 0; pass < 2; ++pass) {
      auto sequence = model.model.start(model.be, 0);
      auto x = support::embedded(model, support::random_ids(20, model.config.vocab_size, 1));
      model.model.prefill(model.be, sequence, x.view(), ffn_rows, record_hook<test_backend>(*recording));
    }
  for (index layer = 0; layer < model.config.layers; ++layer) {
    EXPECT_EQ(whole.activations.at(layer).rows, 20);
    EXPECT_EQ(parts.activations.at(layer).rows, 20);
    EXPECT_EQ(parts.outputs.at(layer).rows, 20);
    for (std::size_t i = 0; i < whole.activations.at(layer).values.size(); ++i)
      ASSERT_NEAR(whole.activations.at(layer).values[i], parts.activations.at(layer).values[i],
                  support::logit_error(model.config));
  }
}

}  // namespace
}  // namespace corematching

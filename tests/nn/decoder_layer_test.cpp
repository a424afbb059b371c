// SPDX-License-Identifier: Apache-2.0
#include "corematching/nn/decoder_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/nn/encoder_layer.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using context = layer_context<B>;
using rows_view = matrix_view<const float, B::space>;

llama_config one_layer() {
  llama_config config = support::tiny_config();
  config.layers = 1;
  return config;
}

decoder_layer<B> read_layer(support::tiny_llama<B>& model) {
  const io::checkpoint from = support::unlinked_checkpoint(model.tensors);
  weight_reader<B> reader(model.be, from);
  return layer_of<B>(model.config, read_layer_weights<B>(model.config, reader, "model.layers.0."));
}

/// The layer of a model of one layer, run on embeddings.
class decoder_layers : public testing::Test {
 protected:
  support::tiny_llama<B> model{one_layer()};
  decoder_layer<B> layer = read_layer(model);
  support::placed_vector<B, float> frequencies{model.be,
                                               rotary_frequencies(model.config.rope, model.config.head_dim)};

  struct outcome {
    std::vector<float> x;
    token_selection kept;
  };

  template <hook_of<B> H = no_hook>
  outcome forward(kv_layer<B>& cache, const std::vector<std::int32_t>& ids, H&& hook = {},
                  index ffn_rows = 1000) {
    const index tokens = std::ssize(ids);
    std::vector<std::int32_t> positions;
    for (index i = 0; i < tokens; ++i) positions.push_back(static_cast<std::int32_t>(cache.length() + i));
    const index_view<> at_positions{positions.data(), tokens};
    scratch<B> s(model.be, shape_of(model.config), tokens, ffn_rows);
    auto x = support::embedded(model, ids);
    const context at{model.be, 0, at_positions, cache};
    const auto placed_positions = device_indices(model.be, at_positions);
    const token_selection kept =
        layer.forward(at, s, x.view(), placed_positions.view(), frequencies.in(), hook);
    std::vector<float> values;
    download_values(model.be, x.view(), values);
    return {values, kept};
  }
  kv_layer<B> empty_cache() const { return {model.config.kv_heads * model.config.head_dim, 0}; }

  /// Rows `first`... of the twin's hidden states.
  void expect_hidden(const std::vector<float>& x, const support::masked_run& run, index first) {
    const auto expected = support::masked_llama(model.config, model.tensors).hidden(run);
    for (std::size_t i = 0; i < x.size(); ++i)
      ASSERT_NEAR(x[i], expected.values[static_cast<std::size_t>(first * expected.cols) + i],
                  support::logit_error(model.config));
  }
};

TEST_F(decoder_layers, add_attention_and_feed_forward_to_the_hidden_states) {
  for (const index tokens : {1, 3, 4, 5, 37, 70}) {
    const auto ids = support::random_ids(tokens, model.config.vocab_size, 5);
    auto cache = empty_cache();
    expect_hidden(forward(cache, ids).x, {.ids = ids}, 0);
  }
}

TEST_F(decoder_layers, see_the_keys_of_earlier_calls) {
  const auto ids = support::random_ids(12, model.config.vocab_size, 6);
  auto cache = empty_cache();
  forward(cache, {ids.begin(), ids.begin() + 5});
  expect_hidden(forward(cache, {ids.begin() + 5, ids.end() - 1}).x, {.ids = {ids.begin(), ids.end() - 1}}, 5);
  expect_hidden(forward(cache, {ids.back()}).x, {.ids = ids}, 11);
  EXPECT_EQ(cache.length(), 12);
}

TEST_F(decoder_layers, give_nearly_the_same_for_every_number_of_rows_at_a_time) {
  const auto ids = support::random_ids(11, model.config.vocab_size, 7);
  for (const index ffn_rows : {1, 3, 5, 10, 11}) {
    auto cache = empty_cache();
    expect_hidden(forward(cache, ids, no_hook{}, ffn_rows).x, {.ids = ids}, 0);
  }
}

/// Is told everything that can be told, and notes what it hears.
struct listener {
  using attends = sites<site::attention, site::ffn_activation, site::layer_output>;
  std::vector<std::string>* heard;

  void operator()(site::attention, const context& at, const attention_inputs<B>& in) const {
    EXPECT_EQ(in.queries.rows, at.positions.size);
    EXPECT_EQ(in.keys.rows, at.cache.length());
    EXPECT_EQ(in.values.rows, at.cache.length());
    EXPECT_EQ(in.queries.cols, in.shape.query_size());
    EXPECT_EQ(in.keys.cols, in.shape.kv_size());
    heard->push_back("attention");
  }
  void operator()(site::ffn_activation, const context& at, rows_view activation) const {
    EXPECT_EQ(activation.cols, 75);
    heard->push_back("rows " + std::to_string(at.first_row) + "+" + std::to_string(activation.rows));
  }
  void operator()(site::layer_output, const context& at, rows_view x) const {
    EXPECT_EQ(x.rows, at.positions.size);
    EXPECT_EQ(at.first_row, 0);
    heard->push_back("output");
  }
};

TEST_F(decoder_layers, tell_hooks_in_the_order_of_the_computation_and_change_nothing) {
  const auto ids = support::random_ids(7, model.config.vocab_size, 8);
  std::vector<std::string> heard;
  auto cache = empty_cache(), other = empty_cache();
  const auto told = forward(cache, ids, listener{&heard}, 3), untold = forward(other, ids, no_hook{}, 3);
  EXPECT_EQ(heard, (std::vector<std::string>{"attention", "rows 0+3", "rows 3+3", "rows 6+1", "output"}));
  EXPECT_EQ(told.x, untold.x);
  EXPECT_FALSE(told.kept.rows);
}

/// Answers which neurons to compute.
struct chooser {
  using attends = sites<site::ffn_neurons>;
  neuron_selection<B::space> chosen;
  neuron_selection<B::space> operator()(site::ffn_neurons, const context&) const { return chosen; }
};

TEST_F(decoder_layers, compute_the_chosen_neurons_as_if_the_others_were_silent) {
  const std::vector<std::int32_t> some = {0, 7, 8, 9, 40, 74};
  for (const index tokens : {1, 4, 9}) {
    const auto ids = support::random_ids(tokens, model.config.vocab_size, 9);
    auto cache = empty_cache();
    const auto result = forward(cache, ids, chooser{support::placed_neurons<B>(model.be, some).view()});
    expect_hidden(
        result.x,
        {.ids = ids,
         .fires = [&](index, index,
                      index n) { return std::ranges::binary_search(some, static_cast<std::int32_t>(n)); }},
        0);
  }
}

TEST_F(decoder_layers, with_no_neuron_chosen_only_attend) {
  const auto ids = support::random_ids(6, model.config.vocab_size, 9);
  for (const index tokens : {1, 6}) {
    auto cache = empty_cache();
    const std::vector<std::int32_t> first(ids.begin(), ids.begin() + tokens);
    const auto result = forward(cache, first, chooser{index_view<B::space>{}});
    expect_hidden(result.x, {.ids = first, .fires = [](index, index, index) { return false; }}, 0);
  }
}

/// Answers which rows go on.
struct keeper {
  using attends = sites<site::keep_tokens>;
  const std::vector<std::int32_t>* rows;
  token_selection operator()(site::keep_tokens, const context& at) const {
    EXPECT_EQ(at.cache.length(), at.positions.size) << "asked when this call's keys are already cached";
    return {.rows = index_view<>{rows->data(), std::ssize(*rows)}, .scope = cache_scope::later_layers};
  }
};

TEST_F(decoder_layers, hand_the_answer_of_keep_tokens_to_the_caller_and_drop_nothing_themselves) {
  const auto ids = support::random_ids(5, model.config.vocab_size, 10);
  const std::vector<std::int32_t> rows = {1, 4};
  auto cache = empty_cache();
  const auto result = forward(cache, ids, keeper{&rows});
  ASSERT_TRUE(result.kept.rows);
  EXPECT_EQ(result.kept.rows->data, rows.data());
  EXPECT_EQ(result.kept.scope, cache_scope::later_layers);
  EXPECT_EQ(cache.length(), 5);
  expect_hidden(result.x, {.ids = ids}, 0);
}

TEST_F(decoder_layers, run_chained_hooks_as_one) {
  const auto ids = support::random_ids(5, model.config.vocab_size, 11);
  const std::vector<std::int32_t> rows = {0, 2};
  std::vector<std::string> first, second;
  auto cache = empty_cache();
  const auto result = forward(cache, ids, chain(listener{&first}, chain(keeper{&rows}, listener{&second})));
  EXPECT_EQ(first, (std::vector<std::string>{"attention", "rows 0+5", "output"}));
  EXPECT_EQ(second, first);
  EXPECT_TRUE(result.kept.rows);
}

TEST_F(decoder_layers, know_the_bytes_of_their_weights) {
  const index d = 20, q = 24, kv = 12;
  EXPECT_EQ(layer.neurons(), 75);
  EXPECT_EQ(layer.attention_weight_bytes(), static_cast<std::uint64_t>(4 * (2 * d * q + 2 * d * kv)));
  EXPECT_EQ(layer.neuron_bytes(), static_cast<std::uint64_t>(3 * 4 * d));
}

/// One encoder layer of random weights, and the same in binary64.
class encoder_layers : public testing::Test {
 protected:
  static constexpr index d = 24, mlp = 50, heads = 3;
  std::mt19937 random{13};
  B be = support::make_backend<B>(2);
  support::tensor_map tensors;

  support::real_matrix& tensor(const std::string& name, index rows, index cols, double magnitude) {
    return tensors[name] = support::random_matrix(rows, cols, random, magnitude);
  }
  linear<B> make_linear(const std::string& name, index out, index in) {
    const auto stored =
        support::placed_weight(be, tensor(name, out, in, 1 / std::sqrt(static_cast<double>(in))), dtype::f32);
    return {stored, make_vector(name + "_bias", out)};
  }
  parameters<B> make_vector(const std::string& name, index size) {
    const auto& values = tensor(name, 1, size, 1).values;
    const std::vector<float> host(values.begin(), values.end());
    auto memory = be.allocate<float>(size);
    be.upload(memory.view(), {host.data(), size});
    return memory;
  }
  layer_norm<B> make_norm(const std::string& name) {
    return {make_vector(name + "_weight", d), make_vector(name + "_bias", d)};
  }
  support::real_matrix project(const support::real_matrix& x, const std::string& name) const {
    return support::twin::matmul(x, tensors.at(name), tensors.at(name + "_bias"));
  }
  support::real_matrix normalise(const support::real_matrix& x, const std::string& name) const {
    return support::twin::layer_norm(x, tensors.at(name + "_weight"), tensors.at(name + "_bias"), 1e-5f);
  }
};

TEST_F(encoder_layers, let_every_token_see_every_other) {
  const attention_shape shape{heads, heads, d / heads, 1 / std::sqrt(8.0f), false};
  encoder_weights<B> weights{make_norm("norm1"),         make_norm("norm2"),        make_linear("q", d, d),
                             make_linear("k", d, d),     make_linear("v", d, d),    make_linear("o", d, d),
                             make_linear("fc1", mlp, d), make_linear("fc2", d, mlp)};
  const encoder_layer<B> layer(std::move(weights), shape, activation::quick_gelu, 1e-5f);
  for (const index tokens : {1, 5, 67}) {
    support::real_matrix x = support::random_matrix(tokens, d, random);
    support::placed_matrix<B> placed(be, x);
    encoder_scratch<B> s(be, tokens, d, mlp);
    layer.forward(be, s, placed.view());
    const auto add = [&](const support::real_matrix& more) {
      for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += more.values[i];
    };
    const auto normed = normalise(x, "norm1");
    add(project(
        support::twin::attention(project(normed, "q"), project(normed, "k"), project(normed, "v"), shape),
        "o"));
    auto inner = project(normalise(x, "norm2"), "fc1");
    for (double& value : inner.values) value = support::twin::activated(activation::quick_gelu, value);
    add(project(inner, "fc2"));
    // Seven operations in a row, each with an error of a dot product of at most 50 terms of order 1.
    support::expect_near(placed.values(), x, 7 * support::dot_error(mlp));
  }
}

}  // namespace
}  // namespace corematching

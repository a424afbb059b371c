// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/llama/llama.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/generation/generate.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/cost.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "support/error_text.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using tiny = support::tiny_llama<B>;
using ids_list = std::vector<std::int32_t>;
using support::error_text;
using support::expect_parts;

/// Variants of the architecture that a config can ask for.
llama_config variant(const std::string& name) {
  llama_config config = support::tiny_config();
  if (name == "plain") config.qkv_bias = config.o_bias = false;
  if (name == "qkv_bias") config.o_bias = false;
  if (name == "head_norms") config.qk_norm = true;
  if (name == "tied") config.tie_word_embeddings = true;
  if (name == "one_key_head") config.kv_heads = 1;
  if (name == "wide_heads") config.head_dim = 10;
  if (name == "gelu") config.hidden_act = activation::gelu_tanh;
  if (name == "stretched") config.rope = {.theta = 500, .scaling = rope_scaling::linear, .factor = 3};
  return config;
}

class llama_variants : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(of, llama_variants,
                         testing::Values("grouped", "plain", "qkv_bias", "head_norms", "tied", "one_key_head",
                                         "wide_heads", "gelu", "stretched"),
                         [](const auto& of) { return std::string(of.param); });

TEST_P(llama_variants, compute_the_logits_of_the_formulas_in_prefill_and_decode) {
  tiny model(variant(GetParam()));
  const support::masked_llama twin(model.config, model.tensors);
  support::masked_run run{.ids = support::random_ids(9, model.config.vocab_size, 2)};
  auto sequence = model.model.start(model.be, 2);
  auto x = support::embedded(model, run.ids);
  const double error = support::logit_error(model.config);
  support::expect_logits(model.model.prefill(model.be, sequence, x.view(), 1000), twin.last_logits(run),
                         error);
  for (const std::int32_t id : {7, 0, 60, 7}) {
    run.ids.push_back(id);
    support::expect_logits(model.model.decode(model.be, sequence, id), twin.last_logits(run), error);
  }
  EXPECT_EQ(sequence.next_position, 13);
}

class llamas : public testing::Test {
 protected:
  tiny model;

  std::vector<float> prefill(sequence<B>& sequence, const ids_list& ids, index ffn_rows = 1000) {
    auto x = support::embedded(model, ids);
    return model.model.prefill(model.be, sequence, x.view(), ffn_rows);
  }
};

TEST_F(llamas, prefill_in_parts_as_in_one) {
  const ids_list ids = support::random_ids(17, model.config.vocab_size, 3);
  auto whole = model.model.start(model.be, 0), parts = model.model.start(model.be, 0);
  const auto expected = prefill(whole, ids);
  prefill(parts, {ids.begin(), ids.begin() + 1});
  prefill(parts, {ids.begin() + 1, ids.begin() + 9}, 3);
  const auto logits = prefill(parts, {ids.begin() + 9, ids.end()});
  support::expect_logits(logits, {expected.begin(), expected.end()}, support::logit_error(model.config));
  EXPECT_EQ(parts.cache.bytes(), whole.cache.bytes());
}

TEST_F(llamas, go_on_from_where_tokens_were_taken_back) {
  const ids_list ids = support::random_ids(9, model.config.vocab_size, 4);
  auto seq = model.model.start(model.be, 3);
  prefill(seq, ids);
  const std::size_t bytes = seq.cache.bytes();
  const auto follow = [&](const ids_list& more) {
    std::vector<std::vector<float>> logits;
    for (const std::int32_t id : more) logits.push_back(model.model.decode(model.be, seq, id));
    return logits;
  };
  const auto first = follow({7, 0, 60, 7, 12});
  seq.take_back(5);
  EXPECT_EQ(seq.next_position, 9);
  EXPECT_EQ(seq.cache.bytes(), bytes);
  EXPECT_NE(follow({8, 0, 60, 7, 12}), first);
  seq.take_back(5);
  EXPECT_EQ(follow({7, 0, 60, 7, 12}), first);
  expect_parts(error_text([&] { seq.take_back(15); }), "layer 0 holds 14 tokens", "15 cannot be taken back");
}

TEST_F(llamas, refuse_what_does_not_fit_their_context) {
  auto sequence = model.model.start(model.be, 0);
  expect_parts(error_text([&] { prefill(sequence, ids_list(201, 1)); }), "201 tokens", "position 0", "200");
  EXPECT_EQ(sequence.cache.bytes(), 0u) << "nothing was done";
  prefill(sequence, ids_list(199, 1));
  model.model.decode(model.be, sequence, 1);
  expect_parts(error_text([&] { model.model.decode(model.be, sequence, 1); }), "1 tokens", "position 200",
               "200");
}

TEST_F(llamas, drop_no_tokens_beyond_their_window) {
  llama_config config = support::tiny_config();
  config.sliding_window = 50;
  EXPECT_EQ(config.context(), 200);
  EXPECT_EQ(config.context_when_dropping(), 50);
  tiny windowed(config);
  struct keep_two {
    using attends = sites<site::keep_tokens>;
    std::vector<std::int32_t> rows{0, 1};
    token_selection operator()(site::keep_tokens, const layer_context<B>& at) {
      if (at.layer > 0) return {};
      return {index_view<>{rows.data(), 2}, cache_scope::every_layer, false};
    }
  };
  const auto prompt = [&](sequence<B>& seq, index tokens) {
    auto x = support::embedded(windowed, ids_list(static_cast<std::size_t>(tokens), 1));
    windowed.model.prefill(windowed.be, seq, x.view(), tokens, keep_two());
  };
  auto fits = windowed.model.start(windowed.be, 8);
  prompt(fits, 49);
  windowed.model.decode(windowed.be, fits, 1);
  expect_parts(error_text([&] { windowed.model.decode(windowed.be, fits, 1); }), "context of 50", "window");
  auto too_long = windowed.model.start(windowed.be, 8);
  expect_parts(error_text([&] { prompt(too_long, 51); }), "51", "window of 50");
}

TEST_F(llamas, enter_no_tokens_beyond_their_window_where_others_were_left_out) {
  llama_config config = support::tiny_config();
  config.sliding_window = 50;
  tiny windowed(config);
  const auto prompt = [&](index tokens) {
    auto seq = windowed.model.start(windowed.be, 8);
    const std::vector<std::int32_t> places{0, 7, static_cast<std::int32_t>(tokens) - 1};
    auto x = support::embedded(windowed, ids_list(3, 1));
    windowed.model.prefill(windowed.be, seq, x.view(), {{places.data(), 3}, tokens}, 3);
  };
  EXPECT_NO_THROW(prompt(50));
  expect_parts(error_text([&] { prompt(51); }), "51", "window of 50");
}

TEST_F(llamas, refuse_places_that_rows_of_a_prompt_cannot_have) {
  const auto refusal = [&](const std::vector<std::int32_t>& places, index tokens) {
    auto seq = model.model.start(model.be, 0);
    auto x = support::embedded(model, ids_list{1, 2, 3});
    const prompt_places where{{places.data(), std::ssize(places)}, tokens};
    const std::string said = error_text([&] { model.model.prefill(model.be, seq, x.view(), where, 3); });
    EXPECT_EQ(seq.cache.bytes(), 0u) << "nothing was done";
    return said;
  };
  expect_parts(refusal({0, 4}, 5), "2 rows", "3 rows");
  expect_parts(refusal({0, 2, 2}, 3), "ascend");
  expect_parts(refusal({-1, 2, 3}, 4), "from 0");
  expect_parts(refusal({0, 1, 2}, 5), "5 tokens", "place 2", "end");
  expect_parts(refusal({0, 1, 200}, 201), "201 tokens", "context of 200");
}

TEST_F(llamas, refuse_ids_outside_the_vocabulary_and_empty_prompts) {
  auto sequence = model.model.start(model.be, 0);
  for (const std::int32_t id : {-1, 61}) {
    expect_parts(error_text([&] { prefill(sequence, {1, id}); }), "token id " + std::to_string(id), "61");
    expect_parts(error_text([&] { model.model.decode(model.be, sequence, id); }),
                 "token id " + std::to_string(id));
  }
  expect_parts(error_text([&] { prefill(sequence, {}); }), "prompt is empty");
}

TEST_F(llamas, refuse_a_checkpoint_without_a_tensor_or_with_one_of_another_shape) {
  const auto load = [&](const support::tensor_map& tensors) {
    return error_text([&] { tiny broken(model.config, tensors); });
  };
  for (const char* name :
       {"model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.k_proj.bias", "model.norm.weight"}) {
    auto without = model.tensors;
    without.erase(name);
    expect_parts(load(without), "no tensor", name);
  }
  auto narrow = model.tensors;
  narrow["model.layers.3.mlp.down_proj.weight"] = support::real_matrix(20, 74);
  expect_parts(load(narrow), "model.safetensors", "model.layers.3.mlp.down_proj.weight", "[20, 74]",
               "[20, 75]");
}

TEST_F(llamas, refuse_weights_in_memory_of_another_number_of_layers) {
  expect_parts(error_text([&] { llama<B>(model.be, model.config, llama_weights<B>{}); }), "0 layers", "of 4");
}

TEST_F(llamas, read_tensors_under_the_names_of_a_language_model_inside_another) {
  support::tensor_map renamed;
  for (const auto& [name, values] : model.tensors) renamed["language_model." + name] = values;
  tiny inside(model.config, renamed);
  auto a = model.model.start(model.be, 0), b = inside.model.start(inside.be, 0);
  const auto expected = prefill(a, {1, 2, 3});
  auto x = support::embedded(inside, {1, 2, 3});
  EXPECT_EQ(inside.model.prefill(inside.be, b, x.view(), 1000), expected);
}

TEST_F(llamas, set_headroom_aside_behind_each_prompt) {
  auto sequence = model.model.start(model.be, 5);
  prefill(sequence, ids_list(4, 1));
  const auto capacity = sequence.cache.capacity_bytes();
  for (int i = 0; i < 5; ++i) model.model.decode(model.be, sequence, 1);
  EXPECT_EQ(sequence.cache.capacity_bytes(), capacity);
  EXPECT_EQ(sequence.cache.capacity_bytes(), sequence.cache.bytes());
}

/// Keeps some rows at one layer.
struct drop_at {
  using attends = sites<site::keep_tokens>;
  index layer;
  const ids_list* rows;
  token_selection operator()(site::keep_tokens, const layer_context<B>& at) const {
    if (at.layer != layer) return {};
    return {.rows = index_view<>{rows->data(), std::ssize(*rows)}};
  }
};

TEST_F(llamas, go_on_with_the_rows_that_a_hook_keeps) {
  const ids_list ids = support::random_ids(8, model.config.vocab_size, 4), rows = {0, 2, 3, 7};
  auto sequence = model.model.start(model.be, 0);
  auto x = support::embedded(model, ids);
  const auto logits = model.model.prefill(model.be, sequence, x.view(), 1000, drop_at{1, &rows});
  const auto kept = [&](index token) { return std::ranges::binary_search(rows, token); };
  support::masked_run run{.ids = ids};
  run.sees = [&](index layer, index query, index key) { return query == key || layer <= 1 || kept(key); };
  const support::masked_llama twin(model.config, model.tensors);
  support::expect_logits(logits, twin.last_logits(run), support::logit_error(model.config));
  run.ids.push_back(5);
  run.sees = [&](index layer, index query, index key) {
    return query == key || key == 8 || kept(key) || (query < 8 && layer <= 1);
  };
  const auto next = model.model.decode(model.be, sequence, 5);
  support::expect_logits(next, twin.last_logits(run), support::logit_error(model.config));
  for (index layer = 0; layer < 4; ++layer) EXPECT_EQ(sequence.cache[layer].length(), 5);
}

TEST(llama, costs_what_the_formulas_say) {
  for (const std::optional<index> window : {std::optional<index>(), std::optional<index>(4)}) {
    llama_config config = support::tiny_config();
    config.sliding_window = window;
    config.qk_norm = window.has_value();  // norms are counted nowhere
    tiny model(config);
    auto sequence = model.model.start(model.be, 0);
    const auto cost_of = [&](auto&& work) {
      const work_counters before = model.be.counters();
      work();
      return model.be.counters() - before;
    };
    const auto prompt = [&](index tokens) {
      auto x = support::embedded(model, ids_list(static_cast<std::size_t>(tokens), 1));
      model.model.prefill(model.be, sequence, x.view(), tokens);
    };
    EXPECT_EQ(cost_of([&] { prompt(9); }), forward_cost(model.model, dense_loads(config, 0, 9)));
    EXPECT_EQ(cost_of([&] { model.model.decode(model.be, sequence, 1); }),
              forward_cost(model.model, dense_loads(config, 9, 1)));
    EXPECT_EQ(cost_of([&] { prompt(6); }), forward_cost(model.model, dense_loads(config, 10, 6)));
  }
}

TEST(forward_cost, of_one_token_is_twice_the_weights_and_the_cache_that_it_reads) {
  const llama_config config = support::tiny_config();
  const index d = 20, n = 75, q = 24, kv = 12;
  const index weights = d * (2 * q + 2 * kv) + 3 * d * n;
  // Nine keys: a product with each and a weighted sum of the values.
  EXPECT_EQ(layer_flops(config, {1, 9, n}), static_cast<std::uint64_t>(2 * weights + 2 * 2 * 9 * q));
  EXPECT_EQ(layer_flops(config, {1, 9, 10}),
            layer_flops(config, {1, 9, n}) - static_cast<std::uint64_t>(6 * d * (n - 10)));
}

TEST(forward_cost, of_a_prompt_counts_the_pairs_that_see_each_other) {
  const llama_config config = support::tiny_config();
  const std::uint64_t none = layer_flops(config, {3, 3, 0}), behind = layer_flops(config, {3, 10, 0});
  EXPECT_EQ(behind - none, static_cast<std::uint64_t>(4 * 24 * 3 * 7));
  EXPECT_EQ(none, static_cast<std::uint64_t>(3 * 2 * 20 * (2 * 24 + 2 * 12) + 4 * 24 * (1 + 2 + 3)));
}

class generation : public llamas {
 protected:
  struct answer {
    answer_end end;
    ids_list ids;
    std::vector<std::vector<float>> logits;
  };
  answer generate_from(const ids_list& prompt, const stop_rule& stop) {
    auto sequence = model.model.start(model.be, 0);
    sampler greedy;
    answer result;
    const auto choose = [&](std::span<const float> logits) {
      result.logits.emplace_back(logits.begin(), logits.end());
      return greedy(logits);
    };
    auto first = prefill(sequence, prompt);
    result.end = generate(model.be, model.model, sequence, std::move(first), choose, stop, no_hook{},
                          [&](std::int32_t id) { result.ids.push_back(id); });
    positions = sequence.next_position;
    return result;
  }
  std::int32_t positions = 0;
};

TEST_F(generation, says_the_likeliest_token_after_each_one_before) {
  const ids_list prompt = {3, 1, 4};
  const answer result = generate_from(prompt, {.max_new_tokens = 6});
  ASSERT_EQ(result.ids.size(), 6u);
  EXPECT_EQ(result.end, answer_end::length);
  support::masked_run run{.ids = prompt};
  const support::masked_llama twin(model.config, model.tensors);
  for (std::size_t i = 0; i < 6; ++i) {
    support::expect_logits(result.logits[i], twin.last_logits(run), support::logit_error(model.config));
    EXPECT_EQ(std::ranges::max_element(result.logits[i]) - result.logits[i].begin(), result.ids[i]);
    run.ids.push_back(result.ids[i]);
  }
  EXPECT_EQ(positions, 3 + 5) << "the last token is not run";
}

TEST_F(generation, ends_at_a_stop_token_which_is_no_part_of_the_answer) {
  const answer free = generate_from({3, 1, 4}, {.max_new_tokens = 6});
  const std::int32_t stop = free.ids[3];
  const auto first = std::ranges::find(free.ids, stop) - free.ids.begin();
  const answer stopped = generate_from({3, 1, 4}, {.max_new_tokens = 6, .stop_ids = {1000, stop}});
  EXPECT_EQ(stopped.end, answer_end::stop_token);
  EXPECT_EQ(stopped.ids, ids_list(free.ids.begin(), free.ids.begin() + first));
}

TEST_F(generation, ends_where_the_listener_wants_no_more) {
  auto sequence = model.model.start(model.be, 8);
  auto first = prefill(sequence, {3, 1, 4});
  ids_list heard;
  const auto two = [&](std::int32_t id) {
    heard.push_back(id);
    return heard.size() < 2;
  };
  EXPECT_EQ(generate(model.be, model.model, sequence, std::move(first), sampler(), {.max_new_tokens = 8},
                     no_hook{}, two),
            answer_end::listener);
  EXPECT_EQ(heard.size(), 2u);
}

TEST_F(generation, is_the_same_where_the_sampler_chooses_in_the_backends_memory) {
  const ids_list prompt = {3, 1, 4};
  for (const sampling_options& options : {sampling_options{},
                                          {.vocabulary_limit = 9},
                                          {.never = {2, 5}},
                                          {.temperature = 1, .top_k = 7, .seed = 3}}) {
    const auto ids_from = [&](auto&& choose) {
      auto sequence = model.model.start(model.be, 8);
      ids_list ids;
      auto first = prefill(sequence, prompt);
      generate(model.be, model.model, sequence, std::move(first), choose, {.max_new_tokens = 8}, no_hook{},
               [&](std::int32_t id) { ids.push_back(id); });
      return ids;
    };
    sampler on_the_host(options);
    const ids_list expected = ids_from([&](std::span<const float> logits) { return on_the_host(logits); });
    EXPECT_EQ(ids_from(sampler(options)), expected);
    EXPECT_EQ(expected.size(), 8u);
  }
}

TEST_F(generation, says_nothing_where_nothing_is_asked) {
  const answer result = generate_from({3, 1, 4}, {});
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(result.end, answer_end::length);
}

TEST(multimodal_prompt, expands_each_image_token_into_its_rows) {
  const ids_list ids = {5, 32, 6, 32, 32};
  const multimodal_prompt prompt = expand_images(ids, 32, 3);
  EXPECT_EQ(prompt.ids, (ids_list{5, 32, 32, 32, 6, 32, 32, 32, 32, 32, 32}));
  EXPECT_EQ(prompt.size(), 11);
  EXPECT_EQ(prompt.image_tokens(), 9);
  EXPECT_EQ(prompt.picture_sizes, (std::vector<index>{3, 3, 3}));
  for (std::size_t i = 0; i < prompt.ids.size(); ++i)
    EXPECT_EQ(prompt.kinds[i] == token_kind::image, prompt.ids[i] == 32);
  EXPECT_EQ(expand_images(ids_list{}, 32, 3).size(), 0);
  EXPECT_EQ(expand_images(ids_list{1, 2}, 32, 3).image_tokens(), 0);
}

TEST_F(llamas, embed_text_and_put_the_features_of_images_between) {
  const multimodal_prompt prompt = expand_images(ids_list{5, 99, 6, 7, 99}, 99, 2);
  std::mt19937 random(5);
  const auto features = support::random_matrix(4, 20, random);
  support::placed_matrix<B> placed(model.be, features, {1, 3});
  const auto x = embed_prompt(model.be, model.model, prompt, placed.in());
  const support::real_matrix values = support::loaded(model.be, x.view());
  const auto& table = model.tensors.at("model.embed_tokens.weight");
  const auto expect_row = [&](index row, const support::real_matrix& from, index source) {
    for (index j = 0; j < 20; ++j) ASSERT_EQ(values(row, j), from(source, j)) << row;
  };
  ASSERT_EQ(x.rows(), 7);
  expect_row(0, table, 5);
  expect_row(1, features, 0);
  expect_row(2, features, 1);
  expect_row(3, table, 6);
  expect_row(4, table, 7);
  expect_row(5, features, 2);
  expect_row(6, features, 3);
}

TEST_F(llamas, refuse_features_of_more_or_fewer_image_tokens) {
  const multimodal_prompt prompt = expand_images(ids_list{5, 99, 6}, 99, 2);
  for (const index rows : {0, 1, 3}) {
    support::placed_matrix<B> features(model.be, rows, 20);
    expect_parts(error_text([&] { embed_prompt(model.be, model.model, prompt, features.in()); }),
                 "2 image tokens", "features of " + std::to_string(rows));
  }
  const multimodal_prompt unknown = expand_images(ids_list{77}, 99, 2);
  expect_parts(error_text([&] { embed_prompt(model.be, model.model, unknown, {}); }), "token id 77");
}

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/llama/config.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/published_configs.hpp"
#include "support/error_text.hpp"

namespace {

using corematching::activation;
using corematching::llama_config;
using corematching::rope_scaling;
using support::changed;
using support::expect_parts;
using support::json;
using support::parse_text;
using support::qwen3_0_6b;
using support::refusal;

TEST(llama_config, takes_the_defaults_of_transformers) {
  // transformers 5.24.0: LlamaConfig(), MistralConfig(), Qwen2Config(), Qwen3Config()
  EXPECT_EQ(parse_text({{"model_type", "llama"}}), llama_config{});

  llama_config mistral;
  mistral.intermediate_size = 14336;
  mistral.kv_heads = 8;
  mistral.max_positions = 131072;
  mistral.sliding_window = 4096;
  EXPECT_EQ(parse_text({{"model_type", "mistral"}}), mistral);

  llama_config qwen2;
  qwen2.vocab_size = 151936;
  qwen2.intermediate_size = 22016;
  qwen2.max_positions = 32768;
  qwen2.qkv_bias = true;
  qwen2.bos_token_id.reset();
  qwen2.eos_token_ids.clear();
  EXPECT_EQ(parse_text({{"model_type", "qwen2"}}), qwen2);

  llama_config qwen3 = qwen2;
  qwen3.qkv_bias = false;
  qwen3.qk_norm = true;
  EXPECT_EQ(parse_text({{"model_type", "qwen3"}}), qwen3);
}

TEST(llama_config, reads_qwen3_as_it_was_published) {
  llama_config expected;
  expected.vocab_size = 151936;
  expected.hidden_size = 1024;
  expected.intermediate_size = 3072;
  expected.layers = 28;
  expected.heads = 16;
  expected.kv_heads = 8;
  expected.head_dim = 128;
  expected.max_positions = 40960;
  expected.rms_norm_eps = 1e-6;
  expected.rope.theta = 1e6;
  expected.qk_norm = true;
  expected.tie_word_embeddings = true;
  expected.bos_token_id = 151643;
  expected.eos_token_ids = {151645};
  EXPECT_EQ(parse_text(qwen3_0_6b), expected);
}

TEST(llama_config, refuses_what_qwen3_may_have_and_the_layers_do_not_compute) {
  expect_parts(refusal(changed(qwen3_0_6b, "/use_sliding_window", true)),
               "config.json: use_sliding_window is true, expected false");
  expect_parts(refusal(changed(qwen3_0_6b, "/rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}})),
               "config.json: rope_scaling.rope_type is \"yarn\", expected default, linear or llama3");
  expect_parts(refusal(changed(qwen3_0_6b, "/model_type", "qwen3_moe")),
               "config.json: model_type is \"qwen3_moe\", expected llava, llama, mistral, qwen2 or qwen3");
}

TEST(llama_config, gives_qwen3_the_biases_that_it_asks_for) {
  const auto config = parse_text(changed(qwen3_0_6b, "/attention_bias", true));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_TRUE(config.o_bias);
}

TEST(llama_config, derives_no_head_of_qwen3_from_its_hidden_size) {
  EXPECT_EQ(parse_text({{"model_type", "qwen3"},
                        {"hidden_size", 1000},
                        {"num_attention_heads", 12},
                        {"num_key_value_heads", 4}})
                .head_dim,
            128);
}

TEST(llama_config, reads_every_field) {
  const auto config =
      parse_text(json::parse(R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 64,
      "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
      "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "gelu_pytorch_tanh",
      "attention_bias": true, "mlp_bias": false, "pad_token_id": 128004, "tie_word_embeddings": true, "bos_token_id": 128000,
      "eos_token_id": [128001, 128009], "rope_theta": 500000.0})"));
  EXPECT_EQ(config.vocab_size, 128256);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.layers, 3);
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 512);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.hidden_act, activation::gelu_tanh);
  EXPECT_TRUE(config.qkv_bias && config.o_bias && config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 128000);
  EXPECT_EQ(config.pad_token_id, 128004);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int32_t>{128001, 128009}));
  EXPECT_EQ(config.rope.theta, 500000.0);
}

TEST(llama_config, derives_heads_that_are_absent_or_null) {
  json config{{"model_type", "llama"}, {"hidden_size", 96}, {"num_attention_heads", 6}};
  EXPECT_EQ(parse_text(config).kv_heads, 6);
  EXPECT_EQ(parse_text(config).head_dim, 16);
  config["num_key_value_heads"] = nullptr;
  config["head_dim"] = nullptr;
  EXPECT_EQ(parse_text(config).kv_heads, 6);
  EXPECT_EQ(parse_text(config).head_dim, 16);
  config["model_type"] = "qwen2";
  EXPECT_EQ(parse_text(config).kv_heads, 6);
}

TEST(llama_config, gives_qwen2_biases_on_queries_keys_and_values_only) {
  const auto config = parse_text({{"model_type", "qwen2"}});
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
}

TEST(llama_config, refuses_feed_forward_biases) {
  expect_parts(refusal({{"model_type", "llama"}, {"mlp_bias", true}}),
               "config.json: mlp_bias is true, expected false");
}

TEST(llama_config, takes_a_negative_padding_for_none) {
  EXPECT_EQ(parse_text({{"model_type", "llama"}, {"pad_token_id", -1}}).pad_token_id, std::nullopt);
  EXPECT_EQ(parse_text({{"model_type", "llama"}, {"pad_token_id", nullptr}}).pad_token_id, std::nullopt);
}

TEST(llama_config, tells_a_window_of_null_from_none_given) {
  EXPECT_EQ(parse_text({{"model_type", "mistral"}}).sliding_window, 4096);
  EXPECT_EQ(parse_text({{"model_type", "mistral"}, {"sliding_window", nullptr}}).sliding_window,
            std::nullopt);
  EXPECT_EQ(parse_text({{"model_type", "mistral"}, {"sliding_window", 7}}).sliding_window, 7);
  EXPECT_EQ(parse_text({{"model_type", "qwen2"}, {"sliding_window", 7}}).sliding_window, std::nullopt);
  expect_parts(refusal({{"model_type", "qwen2"}, {"use_sliding_window", true}}),
               "config.json: use_sliding_window is true, expected false");
}

TEST(llama_config, refuses_windows_in_some_layers) {
  const json sliding = "sliding_attention", full = "full_attention";
  json mistral{{"model_type", "mistral"}, {"sliding_window", 7}, {"num_hidden_layers", 2}};
  const auto listed = [](json config, const json& types) {
    config["layer_types"] = types;
    return config;
  };
  EXPECT_EQ(parse_text(listed(mistral, nullptr)).sliding_window, 7);
  EXPECT_EQ(parse_text(listed(mistral, {sliding, sliding})).sliding_window, 7);
  for (const json& types : {json{sliding, full}, json{full, full}, json{1, 2}, sliding})
    expect_parts(refusal(listed(mistral, types)), "config.json: layer_types is ",
                 "expected sliding_attention for every layer");
  mistral["sliding_window"] = nullptr;
  EXPECT_EQ(parse_text(listed(mistral, {full, full})).sliding_window, std::nullopt);
  for (const char* type : {"mistral", "qwen2", "qwen3"}) {
    mistral["model_type"] = type;
    expect_parts(refusal(listed(mistral, {full, sliding})),
                 "config.json: layer_types is a list of 2 values, expected full_attention for every layer");
  }
  EXPECT_EQ(parse_text(listed({{"model_type", "llama"}}, {sliding})).sliding_window, std::nullopt);
}

TEST(llama_config, accepts_models_without_begin_or_end_tokens) {
  const auto config =
      parse_text({{"model_type", "llama"}, {"bos_token_id", nullptr}, {"eos_token_id", nullptr}});
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST(rope_config, reads_the_classic_and_the_new_keys_alike) {
  const json llama3{{"factor", 8.0},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 8192}};
  json classic{{"model_type", "llama"}, {"rope_theta", 500000.0}, {"rope_scaling", llama3}};
  classic["rope_scaling"]["rope_type"] = "llama3";
  json current{{"model_type", "llama"}, {"rope_parameters", llama3}};
  current["rope_parameters"].update({{"rope_type", "llama3"}, {"rope_theta", 500000.0}});
  const auto rope = parse_text(classic).rope;
  EXPECT_EQ(rope.theta, 500000.0);
  EXPECT_EQ(rope.scaling, rope_scaling::llama3);
  EXPECT_EQ(rope.factor, 8);
  EXPECT_EQ(rope.low_freq_factor, 1);
  EXPECT_EQ(rope.high_freq_factor, 4);
  EXPECT_EQ(rope.original_max_positions, 8192);
  EXPECT_EQ(parse_text(current).rope, rope);
}

TEST(rope_config, reads_the_new_key_where_the_classic_one_is_empty) {
  const json linear{{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 900.0}};
  const auto rope = parse_text({{"model_type", "llama"}, {"rope_parameters", linear}}).rope;
  EXPECT_EQ(rope.factor, 4);
  for (const json& empty : {json(nullptr), json::object()})
    EXPECT_EQ(
        parse_text({{"model_type", "llama"}, {"rope_scaling", empty}, {"rope_parameters", linear}}).rope,
        rope);
}

TEST(rope_config, takes_the_trained_length_that_stands_beside_the_scaling) {
  json config{{"model_type", "llama"}, {"max_position_embeddings", 64}};
  config["rope_scaling"] = {
      {"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  EXPECT_EQ(parse_text(config).rope.original_max_positions, 64);
  config["original_max_position_embeddings"] = 16;
  EXPECT_EQ(parse_text(config).rope.original_max_positions, 16);
  config["rope_scaling"]["original_max_position_embeddings"] = 32;
  EXPECT_EQ(parse_text(config).rope.original_max_positions, 16);
  config["original_max_position_embeddings"] = nullptr;
  EXPECT_EQ(parse_text(config).rope.original_max_positions, 32);
}

TEST(rope_config, refuses_parameters_of_single_kinds_of_layers) {
  const json one{{"rope_type", "default"}, {"rope_theta", 900.0}};
  expect_parts(refusal({{"model_type", "qwen3"}, {"rope_parameters", {{"full_attention", one}}}}),
               "config.json: rope_parameters.full_attention is an object, expected one rotary embedding");
}

TEST(rope_config, reads_linear_scaling_under_both_names_of_its_type) {
  for (const char* key : {"type", "rope_type"}) {
    const auto rope =
        parse_text({{"model_type", "llama"}, {"rope_scaling", {{key, "linear"}, {"factor", 4}}}}).rope;
    EXPECT_EQ(rope.scaling, rope_scaling::linear);
    EXPECT_EQ(rope.factor, 4);
    EXPECT_EQ(rope.theta, 10000);
  }
}

TEST(rope_config, has_no_scaling_for_null_and_default) {
  for (const json& value : {json(nullptr), json{{"rope_type", "default"}}, json::object()})
    EXPECT_EQ(parse_text({{"model_type", "llama"}, {"rope_scaling", value}}).rope,
              corematching::rope_config{});
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/llava/config.hpp"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "model/published_configs.hpp"
#include "support/error_text.hpp"

namespace {

using corematching::activation;
using corematching::clip_vision_config;
using corematching::image_fit;
using corematching::llama_config;
using corematching::llava_config;
using support::changed;
using support::expect_parts;
using support::json;
using support::llava_7b;
using support::original_7b;
using support::parse;
using support::parse_llava;
using support::refusal;

TEST(llava_config, reads_the_published_checkpoint) {
  const auto config = parse_llava(llava_7b);
  llama_config text;
  text.vocab_size = 32064;
  text.max_positions = 4096;
  text.rms_norm_eps = 1e-5;
  text.pad_token_id = 32001;
  EXPECT_EQ(config.text, text);
  EXPECT_EQ(config.vision, clip_vision_config{});
  EXPECT_EQ(config.image_token_index, 32000);
  EXPECT_EQ(config.vision_layers(), 23);
  EXPECT_EQ(config.image_tokens(), 576);
  EXPECT_EQ(config.projector_hidden_act, activation::gelu_erf);
  EXPECT_TRUE(config.projector_bias);
  const auto image = parse(llava_7b).image;
  EXPECT_EQ(image.resize_shortest_edge, 336);
  EXPECT_EQ(image.fit, image_fit::crop);
}

TEST(llava_config, takes_the_defaults_of_transformers) {
  // LlavaConfig() describes ViT-L/14-336, but a vision_config that leaves keys out is completed from
  // ViT-B/32.
  EXPECT_EQ(parse_llava({{"model_type", "llava"}}), llava_config{});
  const auto vision = parse_llava({{"model_type", "llava"}, {"vision_config", json::object()}}).vision;
  EXPECT_EQ(vision.hidden_size, 768);
  EXPECT_EQ(vision.intermediate_size, 3072);
  EXPECT_EQ(vision.layers, 12);
  EXPECT_EQ(vision.heads, 12);
  EXPECT_EQ(vision.patches(), 49);
}

TEST(llava_config, counts_the_layers_that_run_from_either_end) {
  const auto layers = [](int value) {
    return parse_llava(changed(llava_7b, "/vision_feature_layer", value)).vision_layers();
  };
  EXPECT_EQ(layers(-1), 24);
  EXPECT_EQ(layers(-25), 0);
  EXPECT_EQ(layers(0), 0);
  EXPECT_EQ(layers(24), 24);
}

TEST(llava_config, takes_a_list_of_one_layer_and_null_for_what_is_optional) {
  EXPECT_EQ(parse_llava(changed(llava_7b, "/vision_feature_layer", {-3})).vision_feature_layer, -3);
  for (const char* optional :
       {"/vision_feature_layer", "/vision_feature_select_strategy", "/projector_hidden_act",
        "/multimodal_projector_bias", "/tie_word_embeddings", "/text_config/rms_norm_eps",
        "/text_config/rope_theta", "/text_config/attention_bias", "/vision_config/layer_norm_eps"})
    EXPECT_NO_THROW(parse_llava(changed(llava_7b, optional, nullptr))) << optional;
}

TEST(llava_config, counts_the_class_token_when_all_features_are_taken) {
  EXPECT_EQ(parse_llava(changed(llava_7b, "/vision_feature_select_strategy", "full")).image_tokens(), 577);
}

TEST(llava_config, accepts_both_names_of_the_image_token) {
  json config = llava_7b;
  config.erase("image_token_index");
  config["image_token_id"] = 31999;
  EXPECT_EQ(parse_llava(config).image_token_index, 31999);
  config["image_token_index"] = 32000;
  expect_parts(refusal(config),
               "config.json: image_token_index is 32000, expected the same as image_token_id");
}

TEST(llava_config, ties_embeddings_when_either_place_says_so) {
  EXPECT_TRUE(parse_llava(changed(llava_7b, "/tie_word_embeddings", true)).text.tie_word_embeddings);
  EXPECT_TRUE(
      parse_llava(changed(llava_7b, "/text_config/tie_word_embeddings", true)).text.tie_word_embeddings);
}

TEST(llava_config, accepts_the_other_text_models) {
  const auto config = parse_llava(changed(llava_7b, "/text_config", {{"model_type", "mistral"}}));
  EXPECT_EQ(config.text.kv_heads, 8);
}

TEST(original_llava_config, is_the_same_model_with_padding) {
  const auto config = parse_llava(original_7b);
  auto published = parse_llava(llava_7b);
  published.text.vocab_size = 32000;
  published.text.pad_token_id.reset();
  EXPECT_EQ(config, published);
  EXPECT_EQ(parse_llava(changed(original_7b, "/mm_vision_tower", "/models/clip-vit-large-patch14-336//")),
            config);
  EXPECT_EQ(parse(original_7b).image.fit, image_fit::pad);
  EXPECT_EQ(parse(changed(original_7b, "/image_aspect_ratio", "square")).image.fit, image_fit::crop);
}

TEST(original_llava_config, knows_both_towers_by_name) {
  EXPECT_EQ(parse_llava(changed(original_7b, "/mm_vision_tower", "/models/clip-vit-large-patch14"))
                .vision.image_size,
            224);
  EXPECT_EQ(
      parse_llava(changed(original_7b, "/mm_vision_tower", "clip-vit-large-patch14-336")).vision.image_size,
      336);
}

// A change to a valid configuration, and the complaint that it must cause.
struct bad_value {
  const char* pointer;
  json value;
  const char* complaint;
};
std::ostream& operator<<(std::ostream& out, const bad_value& bad) {
  return out << bad.pointer << " = " << bad.value;
}

class bad_llava : public testing::TestWithParam<bad_value> {};
class bad_original : public testing::TestWithParam<bad_value> {};

TEST_P(bad_llava, is_refused_with_file_and_key) {
  expect_parts(refusal(changed(llava_7b, GetParam().pointer, GetParam().value)),
               std::string("config.json: ") + GetParam().complaint);
}

TEST_P(bad_original, is_refused_with_file_and_key) {
  expect_parts(refusal(changed(original_7b, GetParam().pointer, GetParam().value)),
               std::string("config.json: ") + GetParam().complaint);
}

INSTANTIATE_TEST_SUITE_P(
    text, bad_llava,
    testing::Values(
        bad_value{"/text_config", 1, "text_config is 1, expected an object"},
        bad_value{"/text_config/model_type", "gpt2",
                  "text_config.model_type is \"gpt2\", expected llama, mistral, qwen2"},
        bad_value{"/text_config/vocab_size", 0, "text_config.vocab_size is 0, expected an integer from 1"},
        bad_value{"/text_config/hidden_size", -4096, "text_config.hidden_size is -4096"},
        bad_value{"/text_config/hidden_size", 4096.0, "text_config.hidden_size is 4096.0"},
        bad_value{"/text_config/hidden_size", "4096", "text_config.hidden_size is \"4096\""},
        bad_value{"/text_config/hidden_size", (1 << 20) + 1, "text_config.hidden_size is 1048577"},
        bad_value{"/text_config/hidden_size", 4097, "text_config.hidden_size: 4097 is not a multiple of 32"},
        bad_value{"/text_config/num_hidden_layers", 4097, "text_config.num_hidden_layers is 4097"},
        bad_value{"/text_config/num_attention_heads", 18446744073709551615u,
                  "text_config.num_attention_heads is 1844"},
        bad_value{"/text_config/num_key_value_heads", 5,
                  "text_config.num_key_value_heads: 32 attention heads cannot"},
        bad_value{"/text_config/num_key_value_heads", 0, "text_config.num_key_value_heads is 0"},
        bad_value{"/text_config/head_dim", 127, "text_config.head_dim: 127 is odd"},
        bad_value{"/text_config/head_dim", 1 << 20, "text_config.head_dim: 32 heads of 1048576"},
        bad_value{"/text_config/rms_norm_eps", 0, "text_config.rms_norm_eps is 0"},
        bad_value{"/text_config/rms_norm_eps", -1e-5, "text_config.rms_norm_eps is -1e-05"},
        bad_value{"/text_config/hidden_act", "relu", "text_config.hidden_act is \"relu\", expected silu"},
        bad_value{"/text_config/attention_bias", 1,
                  "text_config.attention_bias is 1, expected true or false"},
        bad_value{"/text_config/eos_token_id", -1, "text_config.eos_token_id is -1"},
        bad_value{"/text_config/eos_token_id", {1, "2"}, "text_config.eos_token_id is \"2\""},
        bad_value{"/text_config/quantization_config",
                  {{"bits", 4}},
                  "text_config.quantization_config is an object"},
        bad_value{"/quantization_config", {{"bits", 4}}, "quantization_config is an object"}));

INSTANTIATE_TEST_SUITE_P(
    rope, bad_llava,
    testing::Values(
        bad_value{"/text_config/rope_theta", 0, "text_config.rope_theta is 0"},
        bad_value{"/text_config/rope_scaling", 2, "text_config.rope_scaling is 2, expected an object"},
        bad_value{"/text_config/rope_scaling",
                  {{"type", "dynamic"}, {"factor", 2}},
                  "text_config.rope_scaling.type is \"dynamic\", expected default, linear or llama3"},
        bad_value{"/text_config/rope_scaling",
                  {{"rope_type", "yarn"}},
                  "text_config.rope_scaling.rope_type is \"yarn\""},
        bad_value{
            "/text_config/rope_scaling", {{"type", "linear"}}, "text_config.rope_scaling.factor is missing"},
        bad_value{"/text_config/rope_scaling",
                  {{"type", "linear"}, {"factor", 0.5}},
                  "text_config.rope_scaling.factor is 0.5"},
        bad_value{"/text_config/rope_parameters",
                  {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
                  "text_config.rope_parameters.high_freq_factor is 4, expected more than low_freq_factor"},
        bad_value{"/text_config/rope_parameters",
                  {{"rope_theta", "1"}},
                  "text_config.rope_parameters.rope_theta is"},
        bad_value{"/text_config/rope_parameters",
                  {{"partial_rotary_factor", 0.5}},
                  "text_config.rope_parameters.partial_rotary_factor is 0.5"},
        bad_value{"/text_config/partial_rotary_factor", 0.5, "text_config.partial_rotary_factor is 0.5"}));

INSTANTIATE_TEST_SUITE_P(
    vision, bad_llava,
    testing::Values(
        bad_value{"/model_type", "llava_next",
                  "model_type is \"llava_next\", expected llava, llama, mistral, qwen2 or qwen3"},
        bad_value{"/model_type", 1, "model_type is 1, expected a string"},
        bad_value{"/vision_config/model_type", "siglip_vision_model", "vision_config.model_type is \"siglip"},
        bad_value{"/vision_config/image_size", {336, 336}, "vision_config.image_size is a list of 2 values"},
        bad_value{"/vision_config/image_size", 335,
                  "vision_config.image_size: 335 is not a multiple of patch_size 14"},
        bad_value{"/vision_config/patch_size", 0, "vision_config.patch_size is 0"},
        bad_value{"/vision_config/num_attention_heads", 15,
                  "vision_config.hidden_size: 1024 is not a multiple of 15"},
        bad_value{"/vision_config/num_channels", 1, "vision_config.num_channels is 1"},
        bad_value{"/vision_config/hidden_act", "x\ny", "vision_config.hidden_act is \"x\\ny\""},
        bad_value{"/vision_config/layer_norm_eps", "x", "vision_config.layer_norm_eps is \"x\""},
        bad_value{"/vision_feature_layer", 25,
                  "vision_feature_layer is 25, expected an integer from -25 to 24"},
        bad_value{"/vision_feature_layer", -26, "vision_feature_layer is -26"},
        bad_value{"/vision_feature_layer", {-2, -5}, "vision_feature_layer is a list of 2 values"},
        bad_value{"/vision_feature_layer", json::array(), "vision_feature_layer is a list of 0 values"},
        bad_value{"/vision_feature_layer", {-26}, "vision_feature_layer is -26"},
        bad_value{"/vision_feature_select_strategy", "cls",
                  "vision_feature_select_strategy is \"cls\", expected default"},
        bad_value{"/image_token_index", -200, "image_token_index is -200"},
        bad_value{"/multimodal_projector_bias", "yes", "multimodal_projector_bias is \"yes\""},
        bad_value{"/projector_hidden_act", 1, "projector_hidden_act is 1, expected a string"}));

INSTANTIATE_TEST_SUITE_P(
    original, bad_original,
    testing::Values(
        bad_value{"/model_type", "llava_mpt", "model_type is \"llava_mpt\", expected llava or llava_llama"},
        bad_value{"/mm_vision_tower", "google/siglip-so400m",
                  "mm_vision_tower is \"google/siglip-so400m\", expected"},
        bad_value{"/mm_vision_tower", nullptr, "mm_vision_tower is null, expected a string"},
        bad_value{"/mm_projector_type", "linear", "mm_projector_type is \"linear\", expected mlp2x_gelu"},
        bad_value{"/mm_hidden_size", 768, "mm_hidden_size is 768, expected 1024"},
        bad_value{"/mm_use_im_start_end", true, "mm_use_im_start_end is true, expected false"},
        bad_value{"/mm_vision_select_feature", "cls",
                  "mm_vision_select_feature is \"cls\", expected patch or cls_patch"},
        bad_value{"/image_aspect_ratio", "anyres",
                  "image_aspect_ratio is \"anyres\", expected pad or square"}));

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/config.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::activation;
using corematching::clip_vision_config;
using corematching::image_fit;
using corematching::image_processor_options;
using corematching::llama_config;
using corematching::llava_config;
using corematching::model_config;
using corematching::parse_image_processor;
using corematching::parse_model_config;
using corematching::read_model_config;
using corematching::rope_scaling;
using corematching::vision_feature_select;
using corematching::io::json;
using corematching::io::json_object;
using support::error_text;
using support::expect_parts;

model_config parse(const json& config) {
  const std::string text = config.dump();
  return parse_model_config(std::as_bytes(std::span(text)), "config.json");
}

llama_config parse_text(const json& config) {
  return parse(config).text();
}

llava_config parse_llava(const json& config) {
  const model_config parsed = parse(config);
  EXPECT_NE(parsed.llava(), nullptr);
  return *parsed.llava();
}

image_processor_options parse_image(const json& config) {
  return parse_image_processor(json_object(config, "preprocessor_config.json"));
}

std::string refusal(const json& config) {
  return error_text([&] { parse(config); });
}

// The config.json of llava-hf/llava-1.5-7b-hf.
const json llava_7b = json::parse(R"({
  "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
  "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
  "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16",
    "vocab_size": 32064},
  "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
  "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
    "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
    "projection_dim": 768, "vocab_size": 32000},
  "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064})");

// What matters of the config.json of liuhaotian/llava-v1.5-7b.
const json original_7b = json::parse(R"({
  "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "image_aspect_ratio": "pad", "intermediate_size": 11008, "max_position_embeddings": 4096,
  "mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": false,
  "mm_use_im_start_end": false, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
  "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava", "num_attention_heads": 32,
  "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05, "rope_scaling": null,
  "tie_word_embeddings": false, "vocab_size": 32000})");

json changed(json config, std::string_view pointer, const json& value) {
  config[json::json_pointer(std::string(pointer))] = value;
  return config;
}

TEST(llama_config, takes_the_defaults_of_transformers) {
  // transformers 5.23.0: LlamaConfig(), MistralConfig(), Qwen2Config()
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
}

TEST(llama_config, reads_every_field) {
  const auto config =
      parse_text(json::parse(R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 64,
      "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
      "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "gelu_pytorch_tanh",
      "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "bos_token_id": 128000,
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
  EXPECT_TRUE(config.qkv_bias && config.o_bias && config.mlp_bias && config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 128000);
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
  EXPECT_FALSE(config.o_bias || config.mlp_bias);
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

TEST(llava_config, reads_the_published_checkpoint) {
  const auto config = parse_llava(llava_7b);
  llama_config text;
  text.vocab_size = 32064;
  text.max_positions = 4096;
  text.rms_norm_eps = 1e-5;
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
  EXPECT_EQ(config, published);
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

TEST(image_processor, reads_the_published_file) {
  const auto options = parse_image(json::parse(R"({"crop_size": {"height": 336, "width": 336},
      "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
      "image_mean": [0.5, 0.25, 0.125], "image_processor_type": "CLIPImageProcessor", "image_std": [1, 0.5, 0.25],
      "processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": 0.00390625,
      "size": {"shortest_edge": 336}})"));
  EXPECT_EQ(options.resize_shortest_edge, 336);
  EXPECT_EQ(options.crop_height, 336);
  EXPECT_EQ(options.crop_width, 336);
  EXPECT_EQ(options.mean, (std::array<float, 3>{0.5f, 0.25f, 0.125f}));
  EXPECT_EQ(options.std, (std::array<float, 3>{1, 0.5f, 0.25f}));
  EXPECT_EQ(options.rescale, 0.00390625);
}

TEST(image_processor, takes_defaults_plain_sizes_and_padding) {
  const auto defaults = parse_image(json::object());
  EXPECT_EQ(defaults.resize_shortest_edge, 224);
  EXPECT_EQ(defaults.crop_height, 224);
  EXPECT_EQ(defaults.mean, image_processor_options{}.mean);
  EXPECT_EQ(defaults.fit, image_fit::crop);
  const auto plain = parse_image({{"size", 300}, {"crop_size", 200}, {"do_pad", true}});
  EXPECT_EQ(plain.resize_shortest_edge, 300);
  EXPECT_EQ(plain.crop_width, 200);
  EXPECT_EQ(plain.fit, image_fit::pad);
}

TEST(image_processor, refuses_what_it_would_not_reproduce) {
  const auto refused = [](const json& config) { return error_text([&] { parse_image(config); }); };
  const std::string file = "preprocessor_config.json: ";
  expect_parts(refused({{"resample", 2}}), file + "resample is 2, expected 3 (bicubic)");
  expect_parts(refused({{"do_resize", false}}), file + "do_resize is false, expected true");
  expect_parts(refused({{"do_center_crop", false}}), file + "do_center_crop is false");
  expect_parts(refused({{"do_rescale", 1}}), file + "do_rescale is 1, expected true or false");
  expect_parts(refused({{"do_normalize", false}}), file + "do_normalize is false");
  expect_parts(refused({{"size", {{"height", 336}, {"width", 336}}}}),
               file + "size.shortest_edge is missing");
  expect_parts(refused({{"size", 0}}), file + "size is 0");
  expect_parts(refused({{"crop_size", {{"height", 336}}}}), file + "crop_size.width is missing");
  expect_parts(refused({{"image_mean", {0.5, 0.5}}}),
               file + "image_mean is a list of 2 values, expected 3 numbers");
  expect_parts(refused({{"image_std", {0.5, 0.5, 0}}}), file + "image_std");
  expect_parts(refused({{"rescale_factor", "x"}}), file + "rescale_factor is \"x\"");
  expect_parts(refused(json::array()), file + "the document is a list of 0 values, expected an object");
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
                  "text_config.model_type is \"gpt2\", expected llama, mistral or"},
        bad_value{"/text_config/vocab_size", 0, "text_config.vocab_size is 0, expected an integer from 1"},
        bad_value{"/text_config/hidden_size", -4096, "text_config.hidden_size is -4096"},
        bad_value{"/text_config/hidden_size", 4096.0, "text_config.hidden_size is 4096.0"},
        bad_value{"/text_config/hidden_size", "4096", "text_config.hidden_size is \"4096\""},
        bad_value{"/text_config/hidden_size", nullptr, "text_config.hidden_size is null"},
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
                  "model_type is \"llava_next\", expected llava, llama, mistral or qwen2"},
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
        bad_value{"/vision_feature_select_strategy", "cls",
                  "vision_feature_select_strategy is \"cls\", expected default"},
        bad_value{"/image_token_index", -200, "image_token_index is -200"},
        bad_value{"/multimodal_projector_bias", "yes", "multimodal_projector_bias is \"yes\""},
        bad_value{"/projector_hidden_act", nullptr, "projector_hidden_act is null, expected a string"}));

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

TEST(model_config, refuses_a_file_without_model_type) {
  expect_parts(refusal(json::object()), "config.json: model_type is missing");
  expect_parts(refusal(json::array()), "config.json: the document is a list");
}

class model_directory : public testing::Test {
 protected:
  void write(const std::string& name, const json& content) { directory.write(name, content.dump()); }
  model_config read() { return read_model_config(directory.path()); }
  std::string path_of(const std::string& name) { return (directory.path() / name).string(); }

  support::temporary_directory directory;
  json processor{{"size", {{"shortest_edge", 336}}}, {"crop_size", {{"height", 336}, {"width", 336}}}};
};

TEST_F(model_directory, needs_only_config_json) {
  expect_parts(error_text([&] { read(); }), path_of("config.json"), "No such file or directory");
  write("config.json", llava_7b);
  EXPECT_EQ(read().image.crop_width, 336);
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2}));
}

TEST_F(model_directory, takes_end_tokens_from_the_generation_config) {
  write("config.json", {{"model_type", "llama"}});
  write("generation_config.json", {{"eos_token_id", {2, 7}}});
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2, 7}));
  write("generation_config.json", json::object());
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2}));
  write("generation_config.json", {{"eos_token_id", "x"}});
  expect_parts(error_text([&] { read(); }), path_of("generation_config.json") + ": eos_token_id is \"x\"");
}

TEST_F(model_directory, finds_the_image_processor_in_either_file) {
  write("config.json", llava_7b);
  processor["do_pad"] = true;
  write("processor_config.json", {{"image_processor", processor}});
  EXPECT_EQ(read().image.fit, image_fit::pad);
  processor["do_pad"] = false;
  write("preprocessor_config.json", processor);
  EXPECT_EQ(read().image.fit, image_fit::crop);
}

TEST_F(model_directory, refuses_an_image_processor_of_another_size) {
  write("config.json", llava_7b);
  processor["crop_size"] = 224;
  write("preprocessor_config.json", processor);
  expect_parts(error_text([&] { read(); }),
               path_of("preprocessor_config.json") + ": crop_size 224 x 224 does not fit", "image_size 336");
}

TEST_F(model_directory, names_the_file_that_is_not_json) {
  write("config.json", llava_7b);
  directory.write("preprocessor_config.json", "{");
  expect_parts(error_text([&] { read(); }), path_of("preprocessor_config.json") + ": not valid JSON");
}

TEST_F(model_directory, ignores_image_processors_of_text_models) {
  write("config.json", {{"model_type", "llama"}});
  directory.write("preprocessor_config.json", "not JSON");
  EXPECT_EQ(read().llava(), nullptr);
}

}  // namespace

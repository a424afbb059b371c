// SPDX-License-Identifier: Apache-2.0
// For tests of configurations: those of published checkpoints, and what becomes of a changed one.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <string_view>

#include "corematching/io/json.hpp"
#include "corematching/model/config.hpp"
#include "support/error_text.hpp"

namespace support {

using corematching::io::json;

inline corematching::model_config parse(const json& config) {
  const std::string text = config.dump();
  return corematching::parse_model_config(std::as_bytes(std::span(text)), "config.json");
}

inline corematching::llama_config parse_text(const json& config) {
  return parse(config).text();
}

inline corematching::llava_config parse_llava(const json& config) {
  const corematching::model_config parsed = parse(config);
  EXPECT_NE(parsed.llava(), nullptr);
  return *parsed.llava();
}

inline std::string refusal(const json& config) {
  return error_text([&] { parse(config); });
}

/// The config.json of llava-hf/llava-1.5-7b-hf.
inline const json llava_7b = json::parse(R"({
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

/// What matters of the config.json of liuhaotian/llava-v1.5-7b.
inline const json original_7b = json::parse(R"({
  "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "image_aspect_ratio": "pad", "intermediate_size": 11008, "max_position_embeddings": 4096,
  "mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": false,
  "mm_use_im_start_end": false, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
  "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava", "num_attention_heads": 32,
  "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05, "rope_scaling": null,
  "tie_word_embeddings": false, "vocab_size": 32000})");

/// The config.json of Qwen/Qwen3-0.6B.
inline const json qwen3_0_6b = json::parse(R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
  "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
  "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 151936})");

inline json changed(json config, std::string_view pointer, const json& value) {
  config[json::json_pointer(std::string(pointer))] = value;
  return config;
}

}  // namespace support

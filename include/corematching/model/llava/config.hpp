// SPDX-License-Identifier: Apache-2.0
// The shape of a LLaVA-1.5 model: CLIP vision tower, projector and LLaMA-like decoder.
// Source: transformers, models/{clip,llava}/configuration_*.py, and for the original checkpoints
// https://github.com/haotian-liu/LLaVA (llava/model/llava_arch.py, multimodal_projector/builder.py).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/io/json.hpp"
#include "corematching/model/llama/config.hpp"

namespace corematching {

/// Defaults: CLIP ViT-L/14-336, the tower of LLaVA-1.5.
struct clip_vision_config {
  index hidden_size = 1024;
  index intermediate_size = 4096;
  index layers = 24;
  index heads = 16;
  index image_size = 336;  // pixels
  index patch_size = 14;   // pixels
  double layer_norm_eps = 1e-5;
  activation hidden_act = activation::quick_gelu;

  index head_dim() const { return hidden_size / heads; }
  index patches() const { return (image_size / patch_size) * (image_size / patch_size); }

  friend bool operator==(const clip_vision_config&, const clip_vision_config&) = default;
};

/// Which rows of the tower's output become image tokens.
enum class vision_feature_select : std::uint8_t {
  patches,  // "default": without the class token
  full,     // with it
};

struct llava_config {
  clip_vision_config vision;
  llama_config text;
  std::int32_t image_token_index = 32000;
  index vision_feature_layer = -2;  // index into the hidden states, of which the first is the embeddings
  vision_feature_select feature_select = vision_feature_select::patches;
  activation projector_hidden_act = activation::gelu_erf;
  bool projector_bias = true;

  /// How many of the tower's layers run: vision_feature_layer counted from the front.
  index vision_layers() const {
    return vision_feature_layer < 0 ? vision.layers + 1 + vision_feature_layer : vision_feature_layer;
  }
  index image_tokens() const {
    return vision.patches() + (feature_select == vision_feature_select::full ? 1 : 0);
  }

  friend bool operator==(const llava_config&, const llava_config&) = default;
};

namespace detail {

inline constexpr std::int64_t max_picture = std::int64_t{1} << 14;

inline void check_vision(const io::json_object& fields, const clip_vision_config& config) {
  if (config.hidden_size % config.heads != 0)
    fields.contradict("hidden_size", config.hidden_size, " is not a multiple of ", config.heads,
                      " attention heads");
  if (config.image_size % config.patch_size != 0)
    fields.contradict("image_size", config.image_size, " is not a multiple of patch_size ",
                      config.patch_size);
}

// transformers before 5 writes image_token_index, some later files image_token_id.
inline std::int32_t read_image_token(const io::json_object& fields) {
  const std::int64_t id = fields.integer_or("image_token_id", 32000, 0, max_vocab);
  const std::int64_t token = fields.integer_or("image_token_index", id, 0, max_vocab);
  if (fields.has("image_token_id") && token != id)
    fields.refuse("image_token_index", "the same as image_token_id");
  return static_cast<std::int32_t>(token);
}

// One layer, or a list of it; LLaVA-1.5 does not put the features of several side by side.
inline index read_feature_layer(const io::json_object& fields, std::string_view key, index layers) {
  if (!fields.has(key)) return -2;
  const auto listed = fields.integers(key, -layers - 1, layers, 1);
  if (listed.empty()) fields.refuse(key, "one layer");
  return static_cast<index>(listed.front());
}

inline vision_feature_select read_feature_select(const io::json_object& fields, std::string_view key,
                                                 std::string_view patches, std::string_view full) {
  const std::string name = fields.string_or(key, std::string(patches));
  if (name == patches) return vision_feature_select::patches;
  if (name == full) return vision_feature_select::full;
  fields.refuse(key, std::string(patches) + " or " + std::string(full));
}

// The original checkpoints name their tower instead of describing it.
inline clip_vision_config original_tower(const io::json_object& fields) {
  std::string tower = fields.string("mm_vision_tower");  // a name or a path, which may end in slashes
  while (tower.ends_with('/')) tower.pop_back();
  const std::string name = tower.substr(tower.find_last_of('/') + 1);  // npos + 1 is 0
  clip_vision_config config;
  if (name == "clip-vit-large-patch14-336") return config;
  config.image_size = 224;
  if (name == "clip-vit-large-patch14") return config;
  fields.refuse("mm_vision_tower", "clip-vit-large-patch14-336 or clip-vit-large-patch14");
}

}  // namespace detail

/// Reads a `vision_config`; absent keys are those of transformers' CLIPVisionConfig (ViT-B/32).
inline clip_vision_config parse_clip_vision_config(const io::json_object& fields) {
  using namespace detail;
  if (fields.string_or("model_type", "clip_vision_model") != "clip_vision_model")
    fields.refuse("model_type", "clip_vision_model");
  clip_vision_config config;
  config.hidden_size = read_size(fields, "hidden_size", 768, max_width);
  config.intermediate_size = read_size(fields, "intermediate_size", 3072, max_width);
  config.layers = read_size(fields, "num_hidden_layers", 12, max_layers);
  config.heads = read_size(fields, "num_attention_heads", 12, max_width);
  config.image_size = read_size(fields, "image_size", 224, max_picture);
  config.patch_size = read_size(fields, "patch_size", 32, max_picture);
  config.layer_norm_eps = fields.number_or("layer_norm_eps", 1e-5, 1e-12, 1);
  config.hidden_act = read_activation(fields, "hidden_act", "quick_gelu");
  static_cast<void>(fields.integer_or("num_channels", 3, 3, 3));
  check_vision(fields, config);
  return config;
}

/// Reads the config.json of a LLaVA in transformers' layout.
inline llava_config parse_llava_config(const io::json_object& fields) {
  using namespace detail;
  llava_config config;
  if (fields.has("vision_config")) config.vision = parse_clip_vision_config(fields.object("vision_config"));
  if (fields.has("text_config")) {
    const auto text = fields.object("text_config");
    config.text = parse_llama_config(text, text.string_or("model_type", "llama"));
  }
  if (fields.has("quantization_config"))
    fields.refuse("quantization_config", "none: weights are F32, F16 or BF16");
  // Either place ties them, as in transformers.
  config.text.tie_word_embeddings |= fields.boolean_or("tie_word_embeddings", false);
  read_pad_token(fields, config.text);
  config.image_token_index = read_image_token(fields);
  config.vision_feature_layer = read_feature_layer(fields, "vision_feature_layer", config.vision.layers);
  config.feature_select = read_feature_select(fields, "vision_feature_select_strategy", "default", "full");
  config.projector_hidden_act = read_activation(fields, "projector_hidden_act", "gelu");
  config.projector_bias = fields.boolean_or("multimodal_projector_bias", true);
  return config;
}

/// Reads the config.json of a LLaVA in its original layout: LLaMA's fields and mm_*, all in one object. Its
/// vocabulary has no image token; the first id behind it stands for one.
inline llava_config parse_original_llava_config(const io::json_object& fields) {
  using namespace detail;
  llava_config config;
  config.vision = original_tower(fields);
  config.text = parse_llama_config(fields, "llama");
  config.image_token_index = static_cast<std::int32_t>(config.text.vocab_size);
  config.vision_feature_layer = read_feature_layer(fields, "mm_vision_select_layer", config.vision.layers);
  config.feature_select = read_feature_select(fields, "mm_vision_select_feature", "patch", "cls_patch");
  if (fields.string_or("mm_projector_type", "linear") != "mlp2x_gelu")
    fields.refuse("mm_projector_type", "mlp2x_gelu, the projector of LLaVA-1.5");
  if (fields.boolean_or("mm_use_im_start_end", false))
    fields.refuse("mm_use_im_start_end", "false: LLaVA-1.5 puts no tokens around an image");
  if (fields.integer_or("mm_hidden_size", config.vision.hidden_size, 1, max_width) !=
      config.vision.hidden_size)
    fields.refuse("mm_hidden_size",
                  std::to_string(config.vision.hidden_size) + ", the width of mm_vision_tower");
  return config;
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// The CLIP vision tower of LLaVA: class token and patch embeddings, learned positions, a normalisation in
// front, encoder layers. The features are a hidden state of the tower, without its final normalisation.
// Source: transformers, models/clip/modeling_clip.py.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llava/config.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/encoder_layer.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

/// pixel_values [3, S, S] -> one row for each patch of `patch` x `patch` pixels, [patches, 3 * patch *
/// patch], in the order of the weights of the convolution that embeds them.
inline std::vector<float> patch_rows(std::span<const float> pixel_values, index size, index patch) {
  std::vector<float> rows;
  rows.reserve(pixel_values.size());
  for (index top = 0; top < size; top += patch)
    for (index left = 0; left < size; left += patch)
      for (index channel = 0; channel < 3; ++channel)
        for (index y = top; y < top + patch; ++y) {
          const float* line = pixel_values.data() + (channel * size + y) * size + left;
          rows.insert(rows.end(), line, line + patch);
        }
  return rows;
}

template <backend B>
class clip_vision {
 public:
  /// Reads the first `layers` layers through `reader`, a weight_reader or mmproj_reader; those behind them do
  /// not reach the features.
  template <class Reader>
  clip_vision(B& be, const clip_vision_config& config, index layers, Reader& reader)
      : config_(config), eps_(static_cast<float>(config.layer_norm_eps)) {
    const std::string prefix = reader.prefix(
        {"vision_tower.", "model.vision_tower.", "model.vision_tower.vision_tower.vision_model.",
         "model.vision_tower.vision_model.", "vision_tower.vision_model."},
        "embeddings.class_embedding");
    const index d = config.hidden_size, p = config.patch_size;
    patch_embedding_ = reader.vision_matrix(prefix + "embeddings.patch_embedding.weight", {d, 3, p, p});
    read_positions(be, reader, prefix + "embeddings.");
    pre_norm_ = read_norm(reader, prefix + "pre_layrnorm");  // the name in every checkpoint
    for (index i = 0; i < layers; ++i)
      layers_.push_back(read_layer(reader, prefix + "encoder.layers." + std::to_string(i) + "."));
  }

  /// pixel_values [3, image_size, image_size] -> hidden state after the layers read, [1 + patches, D], class
  /// token first.
  matrix<B> forward(B& be, std::span<const float> pixel_values) const {
    const index patches = config_.patches(), d = config_.hidden_size;
    const auto rows = patch_rows(pixel_values, config_.image_size, config_.patch_size);
    matrix<B> pixels(be, patches, std::ssize(rows) / patches), embedded(be, patches, d),
        x(be, 1 + patches, d);
    upload_values(be, pixels.view(), {rows.data(), std::ssize(rows)});
    be.matmul(embedded.view(), pixels.view(), patch_embedding_.view, {});
    be.copy(x.view(), positions_.view());
    be.add(x.view().middle_rows(1, patches), embedded.view());
    pre_norm_(be, x.view(), x.view(), eps_);
    encoder_scratch<B> s(be, 1 + patches, d, config_.intermediate_size);
    for (const encoder_layer<B>& layer : layers_) layer.forward(be, s, x.view());
    return x;
  }

 private:
  // Row 0 also holds the class embedding, which has no pixels to be computed from.
  template <class Reader>
  void read_positions(B& be, Reader& reader, const std::string& prefix) {
    const index tokens = 1 + config_.patches(), d = config_.hidden_size;
    std::vector<float> positions = reader.values(prefix + "position_embedding.weight", {tokens, d});
    const std::vector<float> class_embedding = reader.values(prefix + "class_embedding", {d});
    for (std::size_t i = 0; i < class_embedding.size(); ++i) positions[i] += class_embedding[i];
    positions_ = matrix<B>(be, tokens, d);
    upload_values(be, positions_.view(), {positions.data(), std::ssize(positions)});
  }

  template <class Reader>
  layer_norm<B> read_norm(Reader& reader, const std::string& name) const {
    return {reader.vector(name + ".weight", config_.hidden_size),
            reader.vector(name + ".bias", config_.hidden_size)};
  }

  template <class Reader>
  linear<B> read_linear(Reader& reader, const std::string& name, index out, index in) const {
    return {reader.vision_matrix(name + ".weight", {out, in}), reader.vector(name + ".bias", out)};
  }

  template <class Reader>
  encoder_layer<B> read_layer(Reader& reader, const std::string& prefix) const {
    const index d = config_.hidden_size, m = config_.intermediate_size;
    const std::string attention = prefix + "self_attn.";
    encoder_weights<B> w{
        read_norm(reader, prefix + "layer_norm1"),       read_norm(reader, prefix + "layer_norm2"),
        read_linear(reader, attention + "q_proj", d, d), read_linear(reader, attention + "k_proj", d, d),
        read_linear(reader, attention + "v_proj", d, d), read_linear(reader, attention + "out_proj", d, d),
        read_linear(reader, prefix + "mlp.fc1", m, d),   read_linear(reader, prefix + "mlp.fc2", d, m)};
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim()));
    return {std::move(w),
            {config_.heads, config_.heads, config_.head_dim(), scale, false},
            config_.hidden_act,
            eps_};
  }

  clip_vision_config config_;
  float eps_;
  weight<typename B::space> patch_embedding_;  // [D, 3 * patch * patch]
  matrix<B> positions_;                        // [1 + patches, D]
  layer_norm<B> pre_norm_;
  std::vector<encoder_layer<B>> layers_;
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// LLaVA-1.5: a CLIP vision tower, a projector, and a language model that reads projected patches as tokens.
// Source: transformers, models/llava/modeling_llava.py.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "corematching/model/clip/vision.hpp"
#include "corematching/model/llama/llama.hpp"

namespace corematching {

/// linear_2(act(linear_1(features)))
template <backend B>
class projector {
 public:
  template <class Reader>
  projector(const llava_config& config, Reader& reader) : act_(config.projector_hidden_act) {
    const std::string first = reader.prefix(
        {"model.mm_projector.0", "model.multi_modal_projector.linear_1", "multi_modal_projector.linear_1"},
        ".weight");
    const std::string second = first.substr(0, first.size() - 1) + "2";  // linear_2; in the original, 2
    const index out = config.text.hidden_size, in = config.vision.hidden_size;
    linear_1_ = {reader.vision_matrix(first + ".weight", {out, in}),
                 reader.vector_if(config.projector_bias, first + ".bias", out)};
    linear_2_ = {reader.vision_matrix(second + ".weight", {out, out}),
                 reader.vector_if(config.projector_bias, second + ".bias", out)};
  }

  /// features [tokens, vision hidden] -> [tokens, text hidden]
  matrix<B> operator()(B& be, matrix_view<const float, typename B::space> features) const {
    const index out = linear_1_.matrix.view.rows;
    matrix<B> inner(be, features.rows, out), result(be, features.rows, out);
    linear_1_(be, inner.view(), features);
    be.activate(inner.view(), act_);
    linear_2_(be, result.view(), inner.view());
    return result;
  }

 private:
  activation act_;
  linear<B> linear_1_, linear_2_;
};

template <backend B>
class llava {
 public:
  llava(B& be, const llava_config& config, weight_reader<B>& reader)
      : llava(be, config, reader, llama<B>(be, config.text, reader)) {}
  /// With a language model from elsewhere, such as a packed file, or a GGUF file beside that of an
  /// mmproj_reader.
  template <class Reader>
  llava(B& be, const llava_config& config, Reader& reader, llama<B> language)
      : config_(config),
        vision_(be, config.vision, config.vision_layers(), reader),
        projector_(config, reader),
        language_(std::move(language)) {}

  const llava_config& config() const { return config_; }
  const llama<B>& language() const { return language_; }

  /// pixel_values [3, S, S] -> the image's tokens [image_tokens, text hidden].
  matrix<B> encode_image(B& be, std::span<const float> pixel_values) const {
    const auto side = static_cast<std::size_t>(config_.vision.image_size);
    require(pixel_values.size() == 3 * side * side, "pixel values: ", pixel_values.size(), " given, ",
            3 * side * side, " needed");
    matrix<B> hidden = vision_.forward(be, pixel_values);
    const index tokens = config_.image_tokens();
    return projector_(be, hidden.view().middle_rows(hidden.rows() - tokens, tokens));
  }

 private:
  llava_config config_;
  clip_vision<B> vision_;
  projector<B> projector_;
  llama<B> language_;
};

}  // namespace corematching

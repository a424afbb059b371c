// SPDX-License-Identifier: Apache-2.0
// What an mmproj file calls the tensors of a CLIP tower and of LLaVA's projector.
//
// Two schemes are in use. The old converter calls a layer's first product ffn_down and its second ffn_up,
// today's calls them the other way round; the shapes say which it was. The projector's two matrices are mm.0
// and mm.2, as in the original code, mm.1 and mm.2, as linear_1 and linear_2 of transformers are renamed, or
// mm.model.mlp.0 and .2.
//
// Source: https://github.com/ggml-org/llama.cpp (tools/mtmd/clip-impl.h and clip.cpp,
// tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py, gguf-py/gguf/tensor_mapping.py).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/core/index.hpp"
#include "corematching/io/gguf_file.hpp"

namespace corematching {

/// What the tensors of a tower and a projector are called in transformers, where mmproj_names takes them
/// from.
inline constexpr std::string_view mmproj_tower = "vision_tower.vision_model.";
inline constexpr std::string_view mmproj_projector = "multi_modal_projector.";

/// The names in one file.
struct mmproj_names {
  bool down_is_first = false;  // ffn_down is fc1, and ffn_up is fc2
  std::string first = "mm.0";  // of the projector's matrices
  std::string second = "mm.2";

  /// The name of what transformers calls `name`.
  std::string operator()(std::string_view name) const {
    if (name.starts_with(mmproj_tower)) return in_tower(name.substr(mmproj_tower.size()));
    if (name.starts_with(mmproj_projector)) {
      const std::string_view rest = name.substr(mmproj_projector.size());
      constexpr std::string_view linear = "linear_N";
      if (rest.starts_with("linear_1")) return first + std::string(rest.substr(linear.size()));
      if (rest.starts_with("linear_2")) return second + std::string(rest.substr(linear.size()));
    }
    fail("tensor ", name, " has no name in an mmproj file");
  }

 private:
  using renaming = std::pair<std::string_view, std::string_view>;

  std::string in_tower(std::string_view name) const {
    constexpr std::string_view layers = "encoder.layers.";
    const auto dot = name.find('.', layers.size());
    if (name.starts_with(layers) && dot != name.npos) {
      const std::string_view number = name.substr(layers.size(), dot - layers.size());
      return std::string("v.blk.").append(number).append(".").append(in_layer(name.substr(dot + 1)));
    }
    constexpr std::array<renaming, 4> parts{{{"embeddings.patch_embedding", "patch_embd"},
                                             {"embeddings.position_embedding", "position_embd"},
                                             {"embeddings.class_embedding", "class_embd"},
                                             {"pre_layrnorm", "pre_ln"}}};
    return "v." + renamed(parts, name);
  }

  std::string in_layer(std::string_view name) const {
    const std::array<renaming, 8> parts{{{"layer_norm1", "ln1"},
                                         {"layer_norm2", "ln2"},
                                         {"self_attn.q_proj", "attn_q"},
                                         {"self_attn.k_proj", "attn_k"},
                                         {"self_attn.v_proj", "attn_v"},
                                         {"self_attn.out_proj", "attn_out"},
                                         {"mlp.fc1", down_is_first ? "ffn_down" : "ffn_up"},
                                         {"mlp.fc2", down_is_first ? "ffn_up" : "ffn_down"}}};
    return renamed(parts, name);
  }

  template <class Parts>
  static std::string renamed(const Parts& parts, std::string_view name) {
    for (const auto& [theirs, ours] : parts)
      if (name.starts_with(theirs)) return std::string(ours).append(name.substr(theirs.size()));
    fail("tensor ", name, " has no name in an mmproj file");
  }
};

/// The names in `file`, whose tower is `hidden_size` wide. Where a layer's two matrices are square, which
/// CLIP's never are, they are taken to be called as by the old converter, as llama.cpp does.
inline mmproj_names mmproj_names_of(const io::gguf_file& file, index hidden_size) {
  mmproj_names names;
  const io::gguf_tensor* const down = file.find("v.blk.0.ffn_down.weight");
  names.down_is_first = down != nullptr && down->shape.size() == 2 && down->shape[1] == hidden_size;
  for (const auto& [first, second] :
       {std::pair("mm.0", "mm.2"), std::pair("mm.1", "mm.2"), std::pair("mm.model.mlp.0", "mm.model.mlp.2")})
    if (file.contains(std::string(first) + ".weight")) {
      names.first = first;
      names.second = second;
      break;
    }
  return names;
}

}  // namespace corematching

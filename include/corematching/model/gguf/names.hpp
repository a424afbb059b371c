// SPDX-License-Identifier: Apache-2.0
// What GGUF calls the tensors of a decoder. Source: https://github.com/ggml-org/ggml (docs/gguf.md,
// "Standardized tensor names").
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "corematching/core/error.hpp"

namespace corematching {

inline constexpr std::string_view gguf_embedding = "token_embd.weight";
inline constexpr std::string_view gguf_head = "output.weight";
inline constexpr std::string_view gguf_norm = "output_norm.weight";
/// What the frequencies of rotary positions are divided by.
inline constexpr std::string_view gguf_rope_divisors = "rope_freqs.weight";

/// The name in a GGUF file of what transformers calls `name`, as model/llama/tensors.hpp does.
inline std::string gguf_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> parts{
      {{"input_layernorm", "attn_norm"},
       {"post_attention_layernorm", "ffn_norm"},
       {"self_attn.q_norm", "attn_q_norm"},
       {"self_attn.k_norm", "attn_k_norm"},
       {"self_attn.q_proj", "attn_q"},
       {"self_attn.k_proj", "attn_k"},
       {"self_attn.v_proj", "attn_v"},
       {"self_attn.o_proj", "attn_output"},
       {"mlp.gate_proj", "ffn_gate"},
       {"mlp.up_proj", "ffn_up"},
       {"mlp.down_proj", "ffn_down"}}};
  if (name == "model.embed_tokens.weight") return std::string(gguf_embedding);
  if (name == "model.norm.weight") return std::string(gguf_norm);
  if (name == "lm_head.weight") return std::string(gguf_head);
  constexpr std::string_view layers = "model.layers.";
  const auto dot = name.find('.', layers.size());
  if (name.starts_with(layers) && dot != name.npos) {
    const std::string_view number = name.substr(layers.size(), dot - layers.size());
    const std::string_view rest = name.substr(dot + 1);
    for (const auto& [theirs, ours] : parts)
      if (rest.starts_with(theirs))
        return std::string("blk.").append(number).append(".").append(ours).append(rest.substr(theirs.size()));
  }
  fail("tensor ", name, " has no name in GGUF");
}

}  // namespace corematching

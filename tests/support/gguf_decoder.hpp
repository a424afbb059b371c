// SPDX-License-Identifier: Apache-2.0
// What the GGUF file of a decoder says of it, and the order that it keeps rows in.
// Keys are spelled out here, so that nothing is taken from what is tested.
#pragma once

#include <cstdint>
#include <string>

#include "corematching/core/index.hpp"
#include "corematching/model/llama/config.hpp"
#include "support/raw_gguf.hpp"

namespace support {

inline void add_decoder_metadata(corematching::test::raw_gguf& file, const std::string& architecture,
                                 const corematching::llama_config& config) {
  const auto size = [&](const char* key, corematching::index value) {
    file.integer(architecture + "." + key, static_cast<std::uint32_t>(value));
  };
  file.text("general.architecture", architecture);
  size("block_count", config.layers);
  size("context_length", config.max_positions);
  size("embedding_length", config.hidden_size);
  size("feed_forward_length", config.intermediate_size);
  size("attention.head_count", config.heads);
  size("attention.head_count_kv", config.kv_heads);
  size("attention.key_length", config.head_dim);
  size("attention.value_length", config.head_dim);
  file.real(architecture + ".attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  file.real(architecture + ".rope.freq_base", config.rope.theta);
}

/// Whether converters turn the rows of a tensor of the architecture llama, which lie in pairs in the file and
/// half a head apart in transformers.
inline bool has_turned_rows(const std::string& gguf_name) {
  return gguf_name.find("attn_q.") != gguf_name.npos || gguf_name.find("attn_k.") != gguf_name.npos;
}

/// The row of transformers that is row i of such a tensor.
inline corematching::index turned_row(corematching::index i, corematching::index head_dim) {
  const corematching::index pair = i % head_dim / 2, second = i % 2;
  return i - i % head_dim + second * (head_dim / 2) + pair;
}

}  // namespace support

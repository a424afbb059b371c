// SPDX-License-Identifier: Apache-2.0
// The tensors of a decoder by name, shape and place: the one list of them, for whoever reads or writes them.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llama/config.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

inline std::string layer_prefix(const std::string& prefix, index layer) {
  return prefix + "layers." + std::to_string(layer) + ".";
}

/// Calls visit.vector(member, name, size), visit.matrix(member, name, rows, cols) or visit.transposed(...)
/// for every tensor of a layer whose names begin with `prefix`; shapes are those of checkpoints.
template <backend B, class Visitor>
void visit_layer(decoder_weights<B>& w, const llama_config& config, const std::string& prefix,
                 Visitor&& visit) {
  const index d = config.hidden_size, n = config.intermediate_size;
  const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  visit.vector(w.attention_norm, prefix + "input_layernorm.weight", d);
  visit.vector(w.ffn_norm, prefix + "post_attention_layernorm.weight", d);
  if (config.qkv_bias) {
    visit.vector(w.query_bias, attention + "q_proj.bias", q);
    visit.vector(w.key_bias, attention + "k_proj.bias", kv);
    visit.vector(w.value_bias, attention + "v_proj.bias", kv);
  }
  if (config.o_bias) visit.vector(w.output_bias, attention + "o_proj.bias", d);
  visit.matrix(w.query, attention + "q_proj.weight", q, d);
  visit.matrix(w.key, attention + "k_proj.weight", kv, d);
  visit.matrix(w.value, attention + "v_proj.weight", kv, d);
  visit.matrix(w.output, attention + "o_proj.weight", d, q);
  visit.matrix(w.gate, mlp + "gate_proj.weight", n, d);
  visit.matrix(w.up, mlp + "up_proj.weight", n, d);
  visit.transposed(w.down_transposed, mlp + "down_proj.weight", d, n);
}

namespace detail {

template <backend B, class Reader>
struct layer_filler {
  Reader& reader;
  void vector(parameters<B>& to, const std::string& name, index size) { to = reader.vector(name, size); }
  void matrix(weight<typename B::space>& to, const std::string& name, index rows, index cols) {
    to = reader.matrix(name, {rows, cols});
  }
  void transposed(weight<typename B::space>& to, const std::string& name, index rows, index cols) {
    to = reader.transposed(name, rows, cols);
  }
};

}  // namespace detail

inline decoder_shape shape_of(const llama_config& config) {
  const auto scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  return {config.hidden_size,
          config.intermediate_size,
          {config.heads, config.kv_heads, config.head_dim, scale, true, config.sliding_window.value_or(0)}};
}

/// A layer of these weights; `is_subset` as decoder_layer takes it.
template <backend B>
decoder_layer<B> layer_of(const llama_config& config, decoder_weights<B> weights, bool is_subset = false) {
  return {std::move(weights), shape_of(config).attention, config.hidden_act,
          static_cast<float>(config.rms_norm_eps), is_subset};
}

/// The weights of one layer, from a reader of a checkpoint or of a packed file.
template <backend B, class Reader>
decoder_weights<B> read_layer_weights(const llama_config& config, Reader& reader, const std::string& prefix) {
  decoder_weights<B> w;
  visit_layer(w, config, prefix, detail::layer_filler<B, Reader>{reader});
  return w;
}

/// All weights of a model, in the backend's memory.
template <backend B>
struct llama_weights {
  using matrix_weight = weight<typename B::space>;
  matrix_weight embedding;                 // [vocabulary, D]
  std::vector<decoder_weights<B>> layers;  // one per decoder layer
  parameters<B> norm;                      // [D]
  matrix_weight head;                      // [vocabulary, D]; the embedding again where both are tied
};

template <backend B, class Reader>
llama_weights<B> read_llama_weights(const llama_config& config, Reader& reader) {
  const std::string prefix = reader.language_prefix();
  const word_embeddings named = reader.embeddings_of(config);
  llama_weights<B> w;
  w.embedding = reader.matrix(named.embedding, {config.vocab_size, config.hidden_size});
  for (index i = 0; i < config.layers; ++i)
    w.layers.push_back(read_layer_weights<B>(config, reader, layer_prefix(prefix, i)));
  w.norm = reader.vector(prefix + "norm.weight", config.hidden_size);
  w.head = named.tied() ? w.embedding : reader.matrix(named.head, {config.vocab_size, config.hidden_size});
  return w;
}

}  // namespace corematching

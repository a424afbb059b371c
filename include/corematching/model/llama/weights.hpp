// SPDX-License-Identifier: Apache-2.0
// The weights of a decoder, read from a checkpoint or from a packed file into a backend's memory.
#pragma once

#include <cmath>
#include <concepts>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llama/config.hpp"
#include "corematching/model/llama/tensors.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

inline decoder_shape shape_of(const llama_config& config) {
  const auto scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  return {config.hidden_size,
          config.intermediate_size,
          {config.heads, config.kv_heads, config.head_dim, scale, true, config.sliding_window.value_or(0)}};
}

template <backend B>
decoder_layer<B> layer_of(const llama_config& config, decoder_weights<B> weights) {
  return {std::move(weights), shape_of(config).attention, config.hidden_act,
          static_cast<float>(config.rms_norm_eps)};
}

/// The weights of one layer, from a reader of a checkpoint or of a packed file.
template <backend B, class Reader>
decoder_weights<B> read_layer_weights(const llama_config& config, Reader& reader, const std::string& prefix) {
  decoder_weights<B> w;
  visit_layer(config, prefix, [&](const tensor_description& t, auto member) {
    auto& to = member(w);
    if constexpr (std::same_as<decltype(to), parameters<B>&>)
      to = reader.vector(t.name, t.cols);
    else if (t.kind == tensor_kind::transposed)
      to = reader.transposed(t.name, t.rows, t.cols);
    else if (t.kind == tensor_kind::neuron_matrix)
      to = reader.neuron_matrix(t.name, {t.rows, t.cols});
    else
      to = reader.matrix(t.name, {t.rows, t.cols});
  });
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

// SPDX-License-Identifier: Apache-2.0
// Language models of well-known shapes with random weights: what they compute is noise, what it costs is not.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/model/llama/llama.hpp"
#include "random_weights.hpp"

namespace corematching::bench {

inline llama_config decoder_of(index hidden, index neurons, index layers, index heads, index kv_heads) {
  llama_config config;
  config.hidden_size = hidden;
  config.intermediate_size = neurons;
  config.layers = layers;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = hidden / heads;
  config.max_positions = 4096;
  config.rms_norm_eps = 1e-5;
  return config;
}

/// Shapes by the names of their models, as their config.json files have them.
inline const std::map<std::string, llama_config>& shapes() {
  static const std::map<std::string, llama_config> known = {
      {"llava-1.5-7b", decoder_of(4096, 11008, 32, 32, 32)},
      {"llava-1.5-13b", decoder_of(5120, 13824, 40, 40, 40)},
      {"mobilellama-1.4b", decoder_of(2048, 5504, 24, 16, 16)},
      {"tinyllama-1.1b", decoder_of(2048, 5632, 22, 32, 4)},
  };
  return known;
}

namespace detail {

/// Makes one weight after another, each from a sequence of its own.
template <backend B>
class weight_source {
 public:
  weight_source(B& be, cpu::thread_pool& pool, dtype type) : be_(be), pool_(pool), type_(type) {}

  /// Scaled so that a sum over `fan_in` of them keeps the size of what is summed.
  weight<typename B::space> matrix(index rows, index cols, index fan_in) {
    const double rms = 1 / std::sqrt(static_cast<double>(fan_in));
    return be_.place_weight(random_weight(pool_, whole_of(type_), rows, cols, rms, ++seed_));
  }
  /// Of gate and up, whose weights may stand in two planes.
  weight<typename B::space> neuron_matrix(index rows, index cols) {
    const double rms = 1 / std::sqrt(static_cast<double>(cols));
    return be_.place_weight(random_weight(pool_, type_, rows, cols, rms, ++seed_));
  }

  parameters<B> ones(index size) {
    const std::vector<float> ones(static_cast<std::size_t>(size), 1.0f);
    auto values = be_.template allocate<float>(size);
    be_.upload(values.view(), {ones.data(), size});
    return values;
  }

 private:
  B& be_;
  cpu::thread_pool& pool_;
  dtype type_;
  std::uint64_t seed_ = 0;
};

template <backend B>
decoder_weights<B> random_layer(weight_source<B>& source, const llama_config& config) {
  const index d = config.hidden_size, n = config.intermediate_size;
  const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  decoder_weights<B> w;
  w.attention_norm = source.ones(d);
  w.ffn_norm = source.ones(d);
  w.query = source.matrix(q, d, d);
  w.key = source.matrix(kv, d, d);
  w.value = source.matrix(kv, d, d);
  w.output = source.matrix(d, q, q);
  w.gate = source.neuron_matrix(n, d);
  w.up = source.neuron_matrix(n, d);
  w.down_transposed = source.matrix(n, d, n);
  return w;
}

}  // namespace detail

/// `threads` of the CPU draw the weights.
template <backend B>
llama<B> random_model(B& be, const llama_config& config, dtype type, int threads) {
  cpu::thread_pool pool(threads);
  detail::weight_source<B> source(be, pool, type);
  llama_weights<B> weights;
  weights.embedding = source.matrix(config.vocab_size, config.hidden_size, config.hidden_size);
  for (index i = 0; i < config.layers; ++i) weights.layers.push_back(detail::random_layer(source, config));
  weights.norm = source.ones(config.hidden_size);
  weights.head = source.matrix(config.vocab_size, config.hidden_size, config.hidden_size);
  return {be, config, std::move(weights)};
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
// What a pass through the decoder costs by formula: the operations and bytes that the backend's counters must
// show. Matrix products and attention are counted, normalisations and nonlinearities are not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/model/llama/llama.hpp"

namespace corematching {

/// One decoder layer's part of a pass.
struct layer_load {
  index tokens = 0;      // rows that the layer computes
  index cached = 0;      // rows of its cache once these are appended
  index neurons = 0;     // of its feed-forward block
  index ffn_passes = 1;  // how often its weights are read: once for each part of the rows that it takes
};

/// Pairs of a query and a key that it sees, where the T last of `cached` rows are queries.
inline index query_key_pairs(const attention_shape& shape, const layer_load& load) {
  index pairs = 0;
  for (index i = 0; i < load.tokens; ++i)
    pairs += shape.visible_keys(i, load.tokens, load.cached) -
             shape.first_visible_key(i, load.tokens, load.cached);
  return pairs;
}

/// Multiply-adds count as two operations: projections 2 T (2 D Hq + 2 D Hkv), feed-forward 6 T D n, attention
/// 4 Hq for each query-key pair.
inline std::uint64_t layer_flops(const llama_config& config, const layer_load& load) {
  const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim,
              d = config.hidden_size;
  const index t = load.tokens;
  const index pairs = query_key_pairs(shape_of(config).attention, load);
  return static_cast<std::uint64_t>(4 * t * d * (q + kv) + 6 * t * d * load.neurons + 4 * q * pairs);
}

/// A pass through layers with these loads, and the logits of one token; keys and values are stored as
/// `cache_type`.
template <backend B>
work_counters forward_cost(const llama<B>& model, const std::vector<layer_load>& loads,
                           dtype cache_type = dtype::f32) {
  const llama_config& config = model.config();
  work_counters cost;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    const layer_bytes layer = model.bytes_of_layer(static_cast<index>(i));
    cost.flops += layer_flops(config, loads[i]);
    cost.weight_bytes +=
        layer.attention + layer.neuron * static_cast<std::uint64_t>(loads[i].neurons * loads[i].ffn_passes);
    const attention_shape attention = shape_of(config).attention;
    const index read = loads[i].cached - attention.first_visible_key(0, loads[i].tokens, loads[i].cached);
    cost.kv_bytes += 2 * stored_bytes(cache_type, read, attention.kv_size());
  }
  cost.flops += static_cast<std::uint64_t>(2 * config.hidden_size * config.vocab_size);
  cost.weight_bytes += model.head_weight_bytes();
  return cost;
}

/// The loads of a dense pass: `tokens` rows behind `past` cached ones in every layer, all neurons; `ffn_rows`
/// of them pass through the feed-forward block at a time (0: all).
inline std::vector<layer_load> dense_loads(const llama_config& config, index past, index tokens,
                                           index ffn_rows = 0) {
  const index passes = ffn_rows > 0 ? (tokens + ffn_rows - 1) / ffn_rows : 1;
  return std::vector<layer_load>(static_cast<std::size_t>(config.layers),
                                 {tokens, past + tokens, config.intermediate_size, passes});
}

}  // namespace corematching

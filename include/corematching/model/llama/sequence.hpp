// SPDX-License-Identifier: Apache-2.0
// The state of one conversation on a model, apart from the weights, which are shared.
#pragma once

#include <cstdint>

#include "corematching/core/error.hpp"
#include "corematching/model/llama/layer_source.hpp"
#include "corematching/nn/decoder_layer.hpp"
#include "corematching/nn/decoding_steps.hpp"

namespace corematching {

template <backend B>
struct sequence {
  kv_cache<B> cache;
  scratch<B> one_token;                             // intermediate activations of decoding
  matrix<B> hidden;                                 // [1, D]
  matrix<B> logits;                                 // [1, vocabulary]
  typename B::template buffer<std::int32_t> input;  // [2], id and position of the current step's token
  layer_subsets<B> subsets;                         // that the model's layer_source keeps for it
  decoding_steps<B> steps = {};
  std::int32_t next_position = 0;

  index_view<typename B::space> device_id() const { return {input.data(), 1}; }
  index_view<typename B::space> device_position() const { return {input.data() + 1, 1}; }

  /// Takes back the last `tokens` tokens, none of which a hook has dropped: their rows leave the cache of
  /// every layer, and whatever comes next stands where they stood. What hooks have seen of them they keep.
  /// Throws `error` where a layer holds fewer.
  void take_back(index tokens) {
    for (index i = 0; i < cache.layers(); ++i)
      require(tokens >= 0 && tokens <= cache[i].length(), "layer ", i, " holds ", cache[i].length(),
              " tokens, so ", tokens, " cannot be taken back");
    for (index i = 0; i < cache.layers(); ++i) cache[i].set_length(cache[i].length() - tokens);
    next_position -= static_cast<std::int32_t>(tokens);
    steps = {};  // what was captured expects caches that grow
  }
};

}  // namespace corematching

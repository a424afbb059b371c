// SPDX-License-Identifier: Apache-2.0
// The state of one conversation on a model, apart from the weights, which are shared.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

template <backend B>
struct sequence {
  kv_cache<B> cache;
  scratch<B> one_token;                                // intermediate activations of decoding
  matrix<B> hidden;                                    // [1, D]
  matrix<B> logits;                                    // [1, vocabulary]
  typename B::template buffer<std::int32_t> position;  // [1]
  typename B::template buffer<std::int32_t> id;        // [1], the token of the current step
  // Under a memory limit, by layer: what decoding needs of it, or null where that is read for every token.
  std::vector<std::shared_ptr<const decoder_layer<B>>> excerpts;
  std::int32_t next_position = 0;
};

}  // namespace corematching

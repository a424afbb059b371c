// SPDX-License-Identifier: Apache-2.0
// What is asked of which model, read and checked before weights are: what is wrong with a question is said at
// once, not after minutes of loading.
#pragma once

#include <memory>

#include "corematching/model/config.hpp"
#include "corematching/model/multimodal_prompt.hpp"
#include "corematching/model/picture.hpp"
#include "corematching/text/tokenizer.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

struct request {
  model_config config;
  std::unique_ptr<text::tokenizer> words;  // null for a model without one
  multimodal_prompt prompt;                // image tokens expanded
};

/// Whether `o` leaves anything out.
inline bool is_sparse(const options& o) {
  return o.sparsity.sparse_neurons || o.sparsity.sparse_tokens;
}

/// Reads the small files of the model's directory and the prompt. Throws `error` for settings that the model
/// cannot have and for a prompt that it cannot be given.
request read_request(const options& o);

/// How many positions a conversation may use.
index context_of(const options& o, const llama_config& config);

/// The picture of `o` as the model will see it: decoded, resized, and cut or padded to a square. Throws
/// `error` where there is none to be had.
picture read_seen_picture(const options& o, const model_config& config);

/// How `o` and the model want pictures processed.
image_processor_options image_options(const options& o, const model_config& config);

}  // namespace corematching::driver

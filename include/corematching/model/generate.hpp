// SPDX-License-Identifier: Apache-2.0
// The decoding loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/model/llama.hpp"

namespace corematching {

/// What ends an answer.
struct stop_rule {
  index max_new_tokens = 0;
  std::vector<std::int32_t> stop_ids = {};  // ends the answer and is not part of it
};

/// Continues `seq`, whose last logits are `logits`, token by token: choose(logits) says which comes next (a
/// `sampler`, or anything that is called like one), on_token(id) hears of it. The answer ends at a stop id,
/// which is not reported, or after max_new_tokens. Returns true if a stop id ended it.
template <backend B, class Choose, hook_of<B> H, class OnToken>
bool generate(B& be, const llama<B>& model, sequence<B>& seq, std::vector<float> logits, Choose&& choose,
              const stop_rule& stop, H&& hook, OnToken&& on_token) {
  for (index step = 0; step < stop.max_new_tokens; ++step) {
    const std::int32_t id = choose(std::span<const float>(logits));
    if (std::ranges::count(stop.stop_ids, id) > 0) return true;
    on_token(id);
    if (step + 1 < stop.max_new_tokens) logits = model.decode(be, seq, id, hook);
  }
  return false;
}

}  // namespace corematching

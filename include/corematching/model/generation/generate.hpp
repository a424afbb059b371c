// SPDX-License-Identifier: Apache-2.0
// The decoding loop.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/model/llama/llama.hpp"

namespace corematching {

/// What ends an answer.
struct stop_rule {
  index max_new_tokens = 0;
  std::vector<std::int32_t> stop_ids = {};  // ends the answer and is not part of it
};

enum class answer_end : std::uint8_t {
  length,      // max_new_tokens were chosen
  stop_token,  // one of stop_ids was
  listener     // whoever heard of the last token wanted no more
};

namespace detail {

/// Whether `on_token` wants another token; one that returns nothing always does.
template <class OnToken>
bool wants_more(OnToken& on_token, std::int32_t id) {
  if constexpr (std::is_void_v<decltype(on_token(id))>) {
    on_token(id);
    return true;
  } else {
    return on_token(id);
  }
}

// Takes logits where the backend has computed them.
template <class Choose, class B>
concept chooses_in_place = requires(Choose& choose, B& be,
                                    matrix_view<const float, typename B::space> logits) {
  { choose(be, logits) } -> std::convertible_to<std::int32_t>;
};

/// Runs token `id` and chooses the next one.
template <backend B, class Choose, hook_of<B> H>
std::int32_t next_token(B& be, const llama<B>& model, sequence<B>& seq, std::int32_t id, Choose& choose,
                        H& hook) {
  if constexpr (chooses_in_place<Choose, B>) {
    model.step(be, seq, id, hook);
    return choose(be, std::as_const(seq.logits).view());
  } else {
    return choose(std::span<const float>(model.decode(be, seq, id, hook)));
  }
}

}  // namespace detail

/// Continues `seq`, whose last logits are `logits`, token by token: choose(logits) says which comes next (a
/// `sampler`, or anything that is called like one; logits of steps stay in the backend's memory where they
/// can be chosen from as choose(be, logits)), on_token(id) hears of it. The answer ends at a stop id, which
/// is not reported, after max_new_tokens, or where on_token returns false.
template <backend B, class Choose, hook_of<B> H, class OnToken>
answer_end generate(B& be, const llama<B>& model, sequence<B>& seq, std::vector<float> logits,
                    Choose&& choose, const stop_rule& stop, H&& hook, OnToken&& on_token) {
  if (stop.max_new_tokens <= 0) return answer_end::length;
  std::int32_t id = choose(std::span<const float>(logits));
  for (index tokens = 1;; ++tokens) {
    if (std::ranges::count(stop.stop_ids, id) > 0) return answer_end::stop_token;
    if (!detail::wants_more(on_token, id)) return answer_end::listener;
    if (tokens == stop.max_new_tokens) return answer_end::length;
    id = detail::next_token(be, model, seq, id, choose, hook);
  }
}

}  // namespace corematching

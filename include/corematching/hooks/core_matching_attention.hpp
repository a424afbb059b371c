// SPDX-License-Identifier: Apache-2.0
// The prefill hook for the token criteria `attention` and `projection`, which look at attention: for
// comparison with other methods. CoreMatching does not need it.
#pragma once

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/token_criteria.hpp"

namespace corematching {

template <selecting_backend B>
void core_matching<B>::observe(const layer_context<B>& at, const attention_inputs<B>& in) {
  if (!matches_at(at.layer)) return;
  const stopwatch watch(*this);
  attention_scores_ = config_.criterion == token_criterion::attention
                          ? detail::attention_scores(at.be, in, at.positions.size)
                          : detail::projection_scores(at.be, in, at.positions.size);
}

/// Attends prefill, for the criteria `attention` and `projection`.
template <selecting_backend B>
class core_matching<B>::attention_prefill_hook : public prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::attention, site::keep_tokens, site::decode_neurons>;
  using prefill_hook::prefill_hook;
  using prefill_hook::operator();

  void operator()(site::attention, const layer_context<B>& at, const attention_inputs<B>& in) {
    this->state_->observe(at, in);
  }
};

/// Calls `body` with the prefill hook that the criterion of `state` needs.
template <backend B, class Body>
decltype(auto) with_prefill_hook(core_matching<B>& state, Body&& body) {
  const token_criterion criterion = state.config().criterion;
  if (criterion == token_criterion::attention || criterion == token_criterion::projection)
    return body(typename core_matching<B>::attention_prefill_hook(state));
  return body(typename core_matching<B>::prefill_hook(state));
}

}  // namespace corematching

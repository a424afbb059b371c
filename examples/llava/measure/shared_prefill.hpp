// SPDX-License-Identifier: Apache-2.0
// One prefill that several configurations see: what each of them has to know of the prompt, it counts for
// itself.
#pragma once

#include <algorithm>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/nn/hook.hpp"
#include "llava/sparse_hooks.hpp"

namespace corematching::driver {

/// Configurations that drop none of the prompt's tokens, as one hook. Decoding computes whatever each
/// configuration asks for, so all neurons stay.
template <sparse_backend B>
class shared_prefill {
 public:
  /// `state` must outlive the hook.
  void add(sparse_state<B>& state) { states_.push_back(&state); }

  /// Returns body(hook).
  template <class Body>
  decltype(auto) with_hook(Body&& body) {
    if (std::ranges::any_of(states_, [](const auto* state) { return state->weighs_ups(); }))
      return body(up_hook(*this));
    return body(hook(*this));
  }

 private:
  using space = typename B::space;

  class hook {
   public:
    using attends = sites<site::ffn_activation, site::layer_output, site::keep_tokens>;
    explicit hook(shared_prefill& of) : of_(&of) {}

    void operator()(site::ffn_activation where, const layer_context<B>& at,
                    matrix_view<const float, space> activation) {
      of_->tell(where, at, activation);
    }
    void operator()(site::layer_output where, const layer_context<B>& at, matrix_view<float, space> x) {
      of_->tell(where, at, x);
    }
    token_selection operator()(site::keep_tokens where, const layer_context<B>& at) {
      for (auto* state : of_->states_)
        require(!typename sparse_state<B>::prefill_hook(*state)(where, at).rows,
                "a configuration drops tokens of a prompt that others share");
      return {};
    }

   protected:
    shared_prefill* of_;
  };

  class up_hook : public hook {
   public:
    using attends = sites<site::ffn_activation, site::ffn_up, site::layer_output, site::keep_tokens>;
    using hook::hook;
    using hook::operator();

    void operator()(site::ffn_up where, const layer_context<B>& at, matrix_view<const float, space> up) {
      this->of_->tell(where, at, up);
    }
  };

  template <class Site, class Given>
  void tell(Site where, const layer_context<B>& at, const Given& given) {
    for (auto* state : states_) {
      typename sparse_state<B>::up_prefill_hook each(*state);
      each(where, at, given);
    }
  }

  std::vector<sparse_state<B>*> states_;
};

}  // namespace corematching::driver

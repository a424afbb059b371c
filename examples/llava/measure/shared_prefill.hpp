// SPDX-License-Identifier: Apache-2.0
// One prefill that several configurations see: what each of them has to know of the prompt, it counts for
// itself.
#pragma once

#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/nn/hook.hpp"

namespace corematching::driver {

/// Hooks that drop none of the prompt's tokens, as one. Decoding computes whatever each configuration asks
/// for, so all neurons stay.
template <selecting_backend B>
class shared_prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::keep_tokens>;
  using activation_view = matrix_view<const float, typename B::space>;

  /// `state` must outlive the hook.
  void add(core_matching<B>& state) { hooks_.emplace_back(state); }

  void operator()(site::ffn_activation, const layer_context<B>& at, activation_view activation) {
    for (auto& hook : hooks_) hook(site::ffn_activation{}, at, activation);
  }
  token_selection operator()(site::keep_tokens, const layer_context<B>& at) {
    for (auto& hook : hooks_)
      require(!hook(site::keep_tokens{}, at).rows,
              "a configuration drops tokens of a prompt that others share");
    return {};
  }

 private:
  std::vector<typename core_matching<B>::prefill_hook> hooks_;
};

}  // namespace corematching::driver

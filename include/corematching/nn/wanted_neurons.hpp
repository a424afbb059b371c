// SPDX-License-Identifier: Apache-2.0
// What a token that is about to be decoded wants of the feed-forward blocks, asked before the step computes
// anything.
#pragma once

#include <optional>
#include <type_traits>

#include "corematching/nn/hook.hpp"

namespace corematching {

/// Of one layer: all neurons, or `neurons`; or those that the token chooses.
template <class Space>
struct wanted_neurons {
  neuron_selection<Space> neurons = {};
  std::optional<neuron_choice<Space>> choice = {};

  friend bool operator==(const wanted_neurons& a, const wanted_neurons& b) {
    const bool same_neurons = a.neurons && b.neurons
                                  ? a.neurons->data == b.neurons->data && a.neurons->size == b.neurons->size
                                  : !a.neurons && !b.neurons;
    return same_neurons && a.choice == b.choice;
  }
};

/// A hook that can be asked for all layers before a step: it attends no site where it is told something, and
/// where it is asked which neurons to compute, it promises to answer ahead.
template <class H>
concept foretelling_hook = hook<H> && std::remove_cvref_t<H>::attends::all([]<class Site>(Site) {
  using site_type = std::remove_cvref_t<Site>;
  return std::is_same_v<site_type, site::decode_neurons> ||
         (site_traits<site_type>::captured == capture::ahead && detail::promises_answers_ahead<H>);
});

/// Its answers for a token at `position`.
template <backend B, hook H>
wanted_neurons<typename B::space> ask_ahead(const layer_context<B>& at, H& hook) {
  return {call_hook<site::ffn_neurons>(hook, at), call_hook<site::neuron_choice>(hook, at)};
}

}  // namespace corematching

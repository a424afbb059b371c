// SPDX-License-Identifier: Apache-2.0
// From the options of a run to the hooks that leave something out: the one place that knows which there are.
// Tokens are left out as in the paper under every policy for neurons. Which policy it is, is asked when a
// site is called: hooks of a type for each would have the model compiled as often.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/magnitude_neurons.hpp"
#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/nn/hook.hpp"
#include "llava/options.hpp"
#include "llava/sparse_settings.hpp"
#include "llava/stopwatch.hpp"

namespace corematching::driver {

/// Finds core neurons, and lets each token choose its own.
template <class B>
concept sparse_backend = selecting_backend<B> && choosing_backend<B>;

/// What one sequence has to remember of its prompts. It stays where it is while there are hooks.
template <sparse_backend B>
class sparse_state {
 public:
  using space = typename B::space;

  class prefill_hook;
  class up_prefill_hook;
  class decode_hook;

  /// For a model like `config`; throws `error` for settings that it cannot have.
  sparse_state(B& be, const options& o, const llama_config& config)
      : matching_(be, matching_of(o), config.layers, shape_of(config)),
        shares_(shares_of(o)),
        layers_(config.layers),
        neurons_(config.intermediate_size) {
    if (!o.sparsity.sparse_neurons || answers_with_core_neurons(o)) return;
    const decoder_shape shape = shape_of(config);
    const auto counted = o.sparsity.counted_kind();
    switch (o.neurons.policy) {
      case neuron_policy::sentence:
        policy_.template emplace<magnitude_neurons<B>>(be, shares_, layers_, shape, counted);
        break;
      case neuron_policy::gate:
        by_weighted_gate_ = true;
        policy_.template emplace<gate_neurons<B>>(be, shares_, layers_, shape, counted);
        break;
      case neuron_policy::plain_gate:
        policy_.template emplace<gate_neurons<B>>(be, shares_, layers_, shape);
        break;
      case neuron_policy::predicted:
        policy_.template emplace<predicted_neurons<B>>(shares_, layers_, shape);
        break;
    }
  }

  /// Announces a prompt, as core_matching::begin_prompt does.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds,
                    std::span<const index> picture_sizes = {}) {
    matching_.begin_prompt(first_position, kinds, picture_sizes);
    if (auto* sums = by_magnitude()) sums->begin_prompt(first_position, kinds);
    if (by_weighted_gate_) by_gate()->begin_prompt(first_position, kinds);
  }

  /// The paper's part: which tokens stay, and core neurons where they answer or tokens are matched with them.
  const core_matching<B>& matching() const { return matching_; }

  /// The neurons of a layer that decoding computes, where they are the same for all tokens; nothing: all, or
  /// each token chooses its own.
  neuron_selection<space> decode_neurons(index layer) const {
    const auto* sums = std::get_if<magnitude_neurons<B>>(&policy_);
    return sums != nullptr ? sums->neurons(layer) : matching_.decode_neurons(layer);
  }
  /// How many neurons of a layer answer each token.
  index neurons_of_token(index layer) const {
    if (const auto same = decode_neurons(layer)) return same->size;
    return chooses_for_each_token() ? shares_.count(layer, layers_, neurons_).value_or(neurons_) : neurons_;
  }
  bool chooses_for_each_token() const {
    return std::holds_alternative<gate_neurons<B>>(policy_) ||
           std::holds_alternative<predicted_neurons<B>>(policy_);
  }
  /// Whether prefill has to attend site::ffn_up, which costs it one product more.
  bool weighs_ups() const { return by_weighted_gate_ && leaves_neurons_out(); }

  /// Host seconds spent on finding neurons and tokens while prompts were read.
  double selection_seconds() const { return matching_.selection_seconds() + seconds_; }

 private:
  magnitude_neurons<B>* by_magnitude() { return std::get_if<magnitude_neurons<B>>(&policy_); }
  gate_neurons<B>* by_gate() { return std::get_if<gate_neurons<B>>(&policy_); }

  bool leaves_neurons_out() const {
    for (index layer = 0; layer < layers_; ++layer)
      if (shares_.count(layer, layers_, neurons_)) return true;
    return false;
  }

  core_matching<B> matching_;
  neuron_shares shares_;
  index layers_, neurons_;
  bool by_weighted_gate_ = false;
  std::variant<std::monostate, magnitude_neurons<B>, gate_neurons<B>, predicted_neurons<B>> policy_;
  double seconds_ = 0;  // of policies beside the paper's
};

/// Attends prefill, but for what weighted gates need.
template <sparse_backend B>
class sparse_state<B>::prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::attention, site::layer_output, site::keep_tokens,
                        site::decode_neurons>;
  using activation_view = matrix_view<const float, space>;

  explicit prefill_hook(sparse_state& state) : state_(&state) {}

  void operator()(site::ffn_activation where, const layer_context<B>& at, activation_view activation) {
    tell_matching(where, at, activation);
    tell_magnitudes(where, at, activation);
  }
  void operator()(site::attention where, const layer_context<B>& at, const attention_inputs<B>& in) {
    tell_matching(where, at, in);
  }
  void operator()(site::layer_output where, const layer_context<B>& at, matrix_view<float, space> x) {
    tell_magnitudes(where, at, x);
  }
  token_selection operator()(site::keep_tokens where, const layer_context<B>& at) {
    return typename core_matching<B>::prefill_hook(state_->matching_)(where, at);
  }
  neuron_selection<space> operator()(site::decode_neurons, const layer_context<B>& at) const {
    return state_->decode_neurons(at.layer);
  }

 protected:
  sparse_state* state_;

 private:
  template <class Site, class Given>
  void tell_matching(Site where, const layer_context<B>& at, const Given& given) {
    corematching::with_prefill_hook(state_->matching_, [&]<class Hook>(Hook hook) {
      if constexpr (corematching::attends<Hook, Site>) hook(where, at, given);
    });
  }
  template <class Site, class Given>
  void tell_magnitudes(Site where, const layer_context<B>& at, const Given& given) {
    auto* sums = state_->by_magnitude();
    if (sums == nullptr) return;
    const stopwatch watch(state_->seconds_);
    typename magnitude_neurons<B>::prefill_hook hook(*sums);
    hook(where, at, given);
  }
};

/// The same, with what weighted gates need.
template <sparse_backend B>
class sparse_state<B>::up_prefill_hook : public prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::ffn_up, site::attention, site::layer_output,
                        site::keep_tokens, site::decode_neurons>;
  using prefill_hook::prefill_hook;
  using prefill_hook::operator();

  void operator()(site::ffn_up where, const layer_context<B>& at, matrix_view<const float, space> up) {
    if (!this->state_->weighs_ups()) return;
    const stopwatch watch(this->state_->seconds_);
    typename gate_neurons<B>::prefill_hook hook(*this->state_->by_gate());
    hook(where, at, up);
  }
};

/// Attends decode. Steps with it can be captured, whatever the policy.
template <sparse_backend B>
class sparse_state<B>::decode_hook {
 public:
  using attends = sites<site::ffn_neurons, site::neuron_choice>;
  static constexpr bool answers_ahead = true;

  explicit decode_hook(const sparse_state& state) : state_(&state) {}

  neuron_selection<space> operator()(site::ffn_neurons, const layer_context<B>& at) const {
    return state_->decode_neurons(at.layer);
  }
  std::optional<neuron_choice<space>> operator()(site::neuron_choice where,
                                                 const layer_context<B>& at) const {
    if (const auto* by_gate = std::get_if<gate_neurons<B>>(&state_->policy_))
      return by_gate->choice(at.layer);
    if (const auto* foretold = std::get_if<predicted_neurons<B>>(&state_->policy_))
      return (*foretold)(where, at);
    return std::nullopt;
  }

 private:
  const sparse_state* state_;
};

/// Calls body(hook) with the hook that a prompt is read with.
template <sparse_backend B, class Body>
decltype(auto) with_prefill_hook(sparse_state<B>& state, Body&& body) {
  if (state.weighs_ups()) return body(typename sparse_state<B>::up_prefill_hook(state));
  return body(typename sparse_state<B>::prefill_hook(state));
}

/// Calls body(hook) with the hook that an answer is decoded with; `state` is null for a dense run.
template <sparse_backend B, class Body>
decltype(auto) with_decode_hook(const sparse_state<B>* state, Body&& body) {
  if (state != nullptr) return body(typename sparse_state<B>::decode_hook(*state));
  return body(no_hook{});
}

}  // namespace corematching::driver

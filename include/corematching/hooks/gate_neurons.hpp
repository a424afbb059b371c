// SPDX-License-Identifier: Apache-2.0
// Neurons chosen for each token by its own gate, instead of once for a whole answer as the paper does: a
// token's gates are computed in full, and of the neurons with the largest |act(gate)| e_n alone the rest, e_n
// being the mean of |x . up_n| over the prompt. Reads (1 + 2 beta) / 3 of the feed-forward blocks' bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "corematching/hooks/magnitude_sums.hpp"
#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

/// Belongs to one sequence. With its decode_hook alone e_n is 1 for all.
template <choosing_backend B>
class gate_neurons {
 public:
  using space = typename B::space;

  class prefill_hook;
  class decode_hook;

  /// For a decoder of `layers` layers; throws `error` where `shares` does not fit it. `counted`: the kind of
  /// the tokens over which the mean is taken; nothing: all.
  gate_neurons(B& be, neuron_shares shares, index layers, const decoder_shape& shape,
               std::optional<token_kind> counted = {})
      : shares_((shares.validate(layers), std::move(shares))),
        layers_(layers),
        neurons_(shape.intermediate_size),
        ups_(be, layers, neurons_, counted) {}

  /// Announces a prompt to be prefilled with prefill_hook, as core_matching::begin_prompt does.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds) {
    ups_.begin_prompt(first_position, kinds);
    weighs_ = true;
  }

  /// How a layer's neurons are chosen; nothing where all are computed.
  std::optional<neuron_choice<space>> choice(index layer) const {
    const std::optional<index> count = shares_.count(layer, layers_, neurons_);
    if (!count) return std::nullopt;
    return neuron_choice<space>{*count, weighs_ ? ups_.of(layer) : vector_view<const float, space>()};
  }

 private:
  neuron_shares shares_;
  index layers_, neurons_;
  magnitude_sums<B> ups_;
  bool weighs_ = false;  // once there was a prompt
};

/// Attends prefill.
template <choosing_backend B>
class gate_neurons<B>::prefill_hook {
 public:
  using attends = sites<site::ffn_up>;
  explicit prefill_hook(gate_neurons& state) : state_(&state) {}

  void operator()(site::ffn_up, const layer_context<B>& at, matrix_view<const float, space> up) {
    state_->ups_.add(at, up);
  }

 private:
  gate_neurons* state_;
};

/// Attends decode.
template <choosing_backend B>
class gate_neurons<B>::decode_hook {
 public:
  using attends = sites<site::neuron_choice>;
  static constexpr bool answers_ahead = true;
  explicit decode_hook(const gate_neurons& state) : state_(&state) {}

  std::optional<neuron_choice<space>> operator()(site::neuron_choice, const layer_context<B>& at) const {
    return state_->choice(at.layer);
  }

 private:
  const gate_neurons* state_;
};

}  // namespace corematching

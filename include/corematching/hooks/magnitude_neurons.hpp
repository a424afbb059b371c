// SPDX-License-Identifier: Apache-2.0
// A fixed set of neurons for a whole answer, as the paper's, but of those with the largest mean of |a_n| over
// the prompt instead of those that are most often among a token's largest positive ones. Where negative
// activations matter, as with SiLU, it is the better set. Reads beta of the feed-forward blocks' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "corematching/hooks/magnitude_sums.hpp"
#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

/// Belongs to one sequence.
template <choosing_backend B>
class magnitude_neurons {
 public:
  using space = typename B::space;

  class prefill_hook;
  class decode_hook;

  /// For a decoder of `layers` layers; throws `error` where `shares` does not fit it. `counted`: the kind of
  /// the tokens over which the mean is taken; nothing: all.
  magnitude_neurons(B& be, neuron_shares shares, index layers, const decoder_shape& shape,
                    std::optional<token_kind> counted = {})
      : shares_((shares.validate(layers), std::move(shares))),
        layers_(layers),
        neurons_(shape.intermediate_size),
        activations_(be, layers, neurons_, counted),
        sets_(static_cast<std::size_t>(layers)) {}

  /// Announces a prompt, as core_matching::begin_prompt does; sums of earlier ones go on.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds) {
    activations_.begin_prompt(first_position, kinds);
  }

  /// The neurons that decoding computes in a layer, ascending; nothing: all, as before the first prompt.
  neuron_selection<space> neurons(index layer) const {
    const auto& set = sets_[static_cast<std::size_t>(layer)];
    return set.size() == 0 ? neuron_selection<space>()
                           : neuron_selection<space>(index_view<space>(set.view()));
  }

 private:
  void choose(B& be, index layer) {
    const std::optional<index> count = shares_.count(layer, layers_, neurons_);
    if (!count) return;
    auto& set = sets_[static_cast<std::size_t>(layer)];
    if (set.size() == 0) set = be.template allocate<std::int32_t>(*count);
    be.top_k(set.view(), activations_.of(layer), {});
  }

  neuron_shares shares_;
  index layers_, neurons_;
  magnitude_sums<B> activations_;
  std::vector<typename B::template buffer<std::int32_t>> sets_;  // of each layer
};

/// Attends prefill.
template <choosing_backend B>
class magnitude_neurons<B>::prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::layer_output, site::decode_neurons>;
  explicit prefill_hook(magnitude_neurons& state) : state_(&state) {}

  void operator()(site::ffn_activation, const layer_context<B>& at,
                  matrix_view<const float, space> activation) {
    state_->activations_.add(at, activation);
  }
  void operator()(site::layer_output, const layer_context<B>& at, matrix_view<float, space>) {
    state_->choose(at.be, at.layer);
  }
  neuron_selection<space> operator()(site::decode_neurons, const layer_context<B>& at) const {
    return state_->neurons(at.layer);
  }

 private:
  magnitude_neurons* state_;
};

/// Attends decode.
template <choosing_backend B>
class magnitude_neurons<B>::decode_hook {
 public:
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = true;
  explicit decode_hook(const magnitude_neurons& state) : state_(&state) {}

  neuron_selection<space> operator()(site::ffn_neurons, const layer_context<B>& at) const {
    return state_->neurons(at.layer);
  }

 private:
  const magnitude_neurons* state_;
};

}  // namespace corematching

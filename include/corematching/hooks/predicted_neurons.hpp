// SPDX-License-Identifier: Apache-2.0
// Neurons chosen for each token by a forecast: the upper planes of gate and up foretell all activations, and
// the neurons with the largest are computed exactly, from the lower planes. Needs weights in two planes
// (core/formats/planes.hpp). With p the upper plane's share of the bits it reads
// 2 (p + (1 - p) beta) / 3 + beta / 3 of the feed-forward blocks' bytes; of f16, whose lower plane takes the
// upper one to be of use, 2 (p + beta) / 3 + beta / 3.
#pragma once

#include <optional>
#include <utility>

#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"

namespace corematching {

/// Attends decode. It needs nothing of a prompt, so it serves any number of sequences.
template <choosing_backend B>
class predicted_neurons {
 public:
  using space = typename B::space;
  using attends = sites<site::neuron_choice>;
  static constexpr bool answers_ahead = true;

  /// For a decoder of `layers` layers; throws `error` where `shares` does not fit it.
  predicted_neurons(neuron_shares shares, index layers, const decoder_shape& shape)
      : shares_((shares.validate(layers), std::move(shares))),
        layers_(layers),
        neurons_(shape.intermediate_size) {}

  std::optional<neuron_choice<space>> operator()(site::neuron_choice, const layer_context<B>& at) const {
    const std::optional<index> count = shares_.count(at.layer, layers_, neurons_);
    if (!count) return std::nullopt;
    return neuron_choice<space>{*count, {}, chosen_by::prediction};
  }

 private:
  neuron_shares shares_;
  index layers_, neurons_;
};

}  // namespace corematching

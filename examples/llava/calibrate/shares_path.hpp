// SPDX-License-Identifier: Apache-2.0
// From the damage that each layer does alone, when it computes a part of its neurons, to shares for all
// layers together: a path from all neurons to few, of which every step saves most for what it costs.
#pragma once

#include <vector>

#include "corematching/core/index.hpp"

namespace corematching::driver {

/// What a layer alone does to the predictions at some shares of its neurons.
struct layer_damage {
  std::vector<double> beta;    // ascending, below 1, at least two
  std::vector<double> damage;  // KL divergence from the dense predictions at each, nats a token

  /// Damage at `share`, which is no smaller than the smallest measured one. Its logarithm is taken as
  /// straight between measured shares, and behind the last one as going on so; what that leaves at 1, where
  /// there is no damage, is taken off in proportion.
  double at(double share) const;
};

/// Shares of all layers, and the sum of what each of them does alone.
struct path_step {
  std::vector<double> beta_of_layer;
  double damage = 0;
};

/// Shares are multiples of 1 / share_parts.
inline constexpr index share_parts = 20;

/// The steps from all layers at 1 to all at `least` / share_parts, each by lowering one layer by one part:
/// the layer that adds least damage, the first of several. What a neuron costs does not depend on its layer
/// or on the share. From 1 layers go to `most` / share_parts at once: shares between may save nothing.
std::vector<path_step> shares_path(const std::vector<layer_damage>& layers, index least,
                                   index most = share_parts - 1);

/// The same where all layers are lowered together: what damages of layers alone do not say, how they add up,
/// it does not depend on.
std::vector<path_step> even_path(const std::vector<layer_damage>& layers, index least,
                                 index most = share_parts - 1);

}  // namespace corematching::driver

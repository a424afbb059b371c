// SPDX-License-Identifier: Apache-2.0
// What share of its neurons each layer computes while an answer is decoded, and whose activations say which:
// for policies beside the paper's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

struct neuron_shares {
  double beta = 0.4;                  // of every layer from `begin` to `end`, in (0, 1]; 1: all neurons
  index begin = 0;                    // layers that decode sparsely: begin <= layer < end
  std::optional<index> end = {};      // nothing: all layers
  std::vector<double> of_layer = {};  // instead of all that, where there are any: a beta for each layer

  /// Throws `error` naming the first value that a model of `layers` layers refuses.
  void validate(index layers) const {
    const auto in_range = [](double share) { return share > 0 && share <= 1; };
    require(in_range(beta), "beta must lie in (0, 1], not ", beta);
    const index last = end.value_or(layers);
    require(begin >= 0 && begin < last && last <= layers, "neuron layers ", begin, "..", last,
            " do not lie in 0..", layers);
    require(of_layer.empty() || std::ssize(of_layer) == layers, "there are ", of_layer.size(),
            " values of beta for ", layers, " layers");
    for (std::size_t layer = 0; layer < of_layer.size(); ++layer)
      require(in_range(of_layer[layer]), "beta of layer ", layer, " must lie in (0, 1], not ",
              of_layer[layer]);
  }

  double of(index layer, index layers) const {
    if (!of_layer.empty()) return of_layer[static_cast<std::size_t>(layer)];
    return layer >= begin && layer < end.value_or(layers) ? beta : 1;
  }

  /// K = max(1, floor(beta N)), of `neurons` neurons; nothing where the layer computes all.
  std::optional<index> count(index layer, index layers, index neurons) const {
    const double share = of(layer, layers);
    if (share == 1) return std::nullopt;
    return std::max<index>(1, static_cast<index>(std::floor(share * static_cast<double>(neurons))));
  }
};

}  // namespace corematching

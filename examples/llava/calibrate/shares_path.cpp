// SPDX-License-Identifier: Apache-2.0
#include "llava/calibrate/shares_path.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "corematching/core/error.hpp"

namespace corematching::driver {

double layer_damage::at(double share) const {
  require(share >= beta.front(), "the damage of a share of ", share, " was not measured");
  constexpr double nothing = 1e-12;  // whose logarithm is finite
  const std::size_t last = beta.size() - 1;
  const auto at_or_above = std::ranges::lower_bound(beta, share) - beta.begin();
  const std::size_t to = std::clamp<std::size_t>(static_cast<std::size_t>(at_or_above), 1, last),
                    from = to - 1;
  const double low = std::log(std::max(damage[from], nothing)),
               high = std::log(std::max(damage[to], nothing));
  const auto line = [&](double x) {
    return std::exp(low + (high - low) * (x - beta[from]) / (beta[to] - beta[from]));
  };
  if (share <= beta[last]) return line(share);
  return line(share) - line(1) * (share - beta[last]) / (1 - beta[last]);
}

namespace {

double share(index parts) {
  return static_cast<double>(parts) / share_parts;
}

/// The next smaller one.
index lowered(index parts, index most) {
  return std::min(parts - 1, most);
}

}  // namespace

std::vector<path_step> even_path(const std::vector<layer_damage>& layers, index least, index most) {
  std::vector<path_step> path;
  for (index parts = share_parts; parts >= least; parts = lowered(parts, most)) {
    path_step& step = path.emplace_back();
    step.beta_of_layer.assign(layers.size(), share(parts));
    for (const layer_damage& layer : layers) step.damage += layer.at(share(parts));
  }
  return path;
}

std::vector<path_step> shares_path(const std::vector<layer_damage>& layers, index least, index most) {
  std::vector<index> parts(layers.size(), share_parts);
  std::vector<path_step> path{{std::vector<double>(layers.size(), 1.0), 0}};
  for (index moves = (most + 1 - least) * std::ssize(layers); moves > 0; --moves) {
    std::size_t cheapest = layers.size();
    double added = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (parts[i] == least) continue;
      const double more = layers[i].at(share(lowered(parts[i], most))) - layers[i].at(share(parts[i]));
      if (cheapest == layers.size() || more < added) {
        cheapest = i;
        added = more;
      }
    }
    path_step next = path.back();
    parts[cheapest] = lowered(parts[cheapest], most);
    next.beta_of_layer[cheapest] = share(parts[cheapest]);
    next.damage += added;
    path.push_back(std::move(next));
  }
  return path;
}

}  // namespace corematching::driver

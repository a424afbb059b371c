// SPDX-License-Identifier: Apache-2.0
// Scores by chance: the control that every comparison of criteria needs.
#pragma once

#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): a counter goes in, a random word comes out.
constexpr std::uint64_t splitmix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace detail

/// The layer in whose place random_score() takes what stands before all layers.
inline constexpr index before_all_layers = -1;

/// A score in 0..2^31-1 that depends on seed, layer and original position alone. The seed is mixed before the
/// place comes in: seeds that differ in a few bits would otherwise give one draw with its places permuted.
constexpr std::int32_t random_score(std::uint64_t seed, index layer, std::int32_t position) {
  const std::uint64_t place =
      (static_cast<std::uint64_t>(layer) << 32) | static_cast<std::uint32_t>(position);
  return static_cast<std::int32_t>(detail::splitmix64(detail::splitmix64(seed) ^ place) >> 33);
}

/// Of the rows at these original positions.
inline std::vector<std::int32_t> random_scores(std::uint64_t seed, index layer, index_view<> positions) {
  std::vector<std::int32_t> scores;
  for (const std::int32_t position : positions) scores.push_back(random_score(seed, layer, position));
  return scores;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

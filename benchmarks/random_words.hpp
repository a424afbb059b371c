// SPDX-License-Identifier: Apache-2.0
// Random numbers by their place in a sequence, so that threads can draw them apart.
#pragma once

#include <cstdint>

namespace corematching::bench {

/// The counter-th word of the sequence `seed`: splitmix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t random_word(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace corematching::bench

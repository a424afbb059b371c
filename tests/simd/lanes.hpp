// SPDX-License-Identifier: Apache-2.0
// Lanes of vectors in memory, for tests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>

#include "corematching/backend/cpu/simd/widest.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

using floats = std::array<float, 8>;
using ints = std::array<std::int32_t, 8>;
using shorts = std::array<std::int16_t, 16>;
using bytes = std::array<std::uint8_t, 32>;
inline constexpr std::size_t lanes_of_wide = wide_lanes;
using wide_floats = std::array<float, lanes_of_wide>;
using wide_ints = std::array<std::int32_t, lanes_of_wide>;
using wide_shorts = std::array<std::int16_t, 2 * lanes_of_wide>;

template <class To, class Vector>
To stored(const Vector& vector) {
  To lanes;
  vector.store(lanes.data());
  return lanes;
}

template <class Array>
Array random_lanes(std::mt19937& random, int lowest, int highest) {
  std::uniform_int_distribution<int> uniform(lowest, highest);
  Array lanes;
  for (auto& lane : lanes) lane = static_cast<typename Array::value_type>(uniform(random));
  return lanes;
}
inline shorts random_shorts(std::mt19937& random) {
  return random_lanes<shorts>(random, -32767, 32767);
}
inline bytes random_bytes(std::mt19937& random) {
  return random_lanes<bytes>(random, 0, 255);
}

inline std::int8_t as_signed(std::uint8_t byte) {
  return static_cast<std::int8_t>(byte);
}

inline constexpr int rounds = 200;  // of random lanes

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

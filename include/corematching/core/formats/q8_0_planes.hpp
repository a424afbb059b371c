// SPDX-License-Identifier: Apache-2.0
// q8_0 in two planes of four bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/q8_0.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q8_0_planes : quant_planes<q8_0, 4> {
  static void split(const std::uint8_t* quants, std::uint8_t* upper, std::uint8_t* lower) {
    for (index i = 0; i < half_bytes; ++i) {
      const int first = quants[i] ^ 128, last = quants[i + half_bytes] ^ 128;
      upper[i] = static_cast<std::uint8_t>(first >> 4 | (last & 240));
      lower[i] = static_cast<std::uint8_t>((first & 15) | last << 4);
    }
  }
  /// In arrays of its own, so that compilers see that nothing overlaps.
  static std::array<std::uint8_t, block_size> merged(const std::uint8_t* upper, const std::uint8_t* lower) {
    std::array<std::uint8_t, half_bytes> u, l;
    std::memcpy(u.data(), upper, u.size());
    std::memcpy(l.data(), lower, l.size());
    std::array<std::uint8_t, block_size> quants;
    for (std::size_t i = 0; i < u.size(); ++i) {
      quants[i] = static_cast<std::uint8_t>((u[i] << 4 | (l[i] & 15)) ^ 128);
      quants[i + u.size()] = static_cast<std::uint8_t>(((u[i] & 240) | l[i] >> 4) ^ 128);
    }
    return quants;
  }
};

template <>
struct format_traits<q8_0_planes> : plane_traits<q8_0_planes> {
  static constexpr const char* name = "q8_0_planes";
};

}  // namespace corematching

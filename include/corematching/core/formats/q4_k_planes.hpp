// SPDX-License-Identifier: Apache-2.0
// q4_k in two planes of two bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/q4_k.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q4_k_planes : super_planes<q4_k, 2> {
  static void split(const q4_k::stored& from, std::uint8_t* upper, std::uint8_t* lower) {
    for (index piece = 0; piece < q4_k::groups; ++piece)
      for (index i = 0; i < piece_bytes; ++i) {
        int high = 0, low = 0;
        for (int part = 0; part < parts; ++part) {
          const int quant = from.quants[piece / 2][i + part * piece_bytes] >> (4 * (piece % 2)) & 15;
          high |= (quant >> plane_bits) << (plane_bits * part);
          low |= (quant & mask) << (plane_bits * part);
        }
        upper[piece * piece_bytes + i] = static_cast<std::uint8_t>(high);
        lower[piece * piece_bytes + i] = static_cast<std::uint8_t>(low);
      }
  }
  static void merge(const std::uint8_t* upper, const std::uint8_t* lower, std::uint8_t* quants) {
    // In arrays of its own, so that compilers see that nothing overlaps.
    std::uint8_t u[piece_bytes], l[piece_bytes], merged[block_size];
    std::memcpy(u, upper, sizeof u);
    std::memcpy(l, lower, sizeof l);
    for (int part = 0; part < parts; ++part)
      for (index i = 0; i < piece_bytes; ++i)
        merged[part * piece_bytes + i] = static_cast<std::uint8_t>(
            (u[i] >> (plane_bits * part) & mask) << plane_bits | (l[i] >> (plane_bits * part) & mask));
    std::memcpy(quants, merged, sizeof merged);
  }

 private:
  static constexpr int parts = 8 / plane_bits, mask = (1 << plane_bits) - 1;
};

template <>
struct format_traits<q4_k_planes> : plane_traits<q4_k_planes> {
  static constexpr const char* name = "q4_k_planes";
};

}  // namespace corematching

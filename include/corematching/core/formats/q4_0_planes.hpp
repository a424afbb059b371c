// SPDX-License-Identifier: Apache-2.0
// q4_0 in two planes of two bits. Bytes of q4_0 hold quants i and i + 16, so
// the first eight of a block are, by their upper and lower bits, every other
// pair of bits of the planes, and the last eight are the others.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/q4_0.hpp"
#include "corematching/core/formats/traits.hpp"

namespace corematching {

struct q4_0_planes : quant_planes<q4_0, 2> {
  static void split(const std::uint8_t* quants, std::uint8_t* upper, std::uint8_t* lower) {
    std::uint64_t first, last;
    std::memcpy(&first, quants, sizeof first);
    std::memcpy(&last, quants + sizeof first, sizeof last);
    const std::uint64_t u = ((first >> 2) & lower_pairs) | (last & ~lower_pairs);
    const std::uint64_t l = (first & lower_pairs) | ((last & lower_pairs) << 2);
    std::memcpy(upper, &u, sizeof u);
    std::memcpy(lower, &l, sizeof l);
  }
  static std::array<std::uint8_t, quant_bytes<q4_0>> merged(const std::uint8_t* upper,
                                                            const std::uint8_t* lower) {
    std::uint64_t u, l;
    std::memcpy(&u, upper, sizeof u);
    std::memcpy(&l, lower, sizeof l);
    const std::uint64_t first = ((u & lower_pairs) << 2) | (l & lower_pairs);
    const std::uint64_t last = (u & ~lower_pairs) | ((l >> 2) & lower_pairs);
    std::array<std::uint8_t, quant_bytes<q4_0>> quants;
    std::memcpy(quants.data(), &first, sizeof first);
    std::memcpy(quants.data() + sizeof first, &last, sizeof last);
    return quants;
  }

 private:
  static_assert(half_bytes == sizeof(std::uint64_t));
  /// Of every four bits the lower two.
  static constexpr std::uint64_t lower_pairs = 0x3333333333333333;
};

template <>
struct format_traits<q4_0_planes> : plane_traits<q4_0_planes> {
  static constexpr const char* name = "q4_0_planes";
};

}  // namespace corematching

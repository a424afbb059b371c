// SPDX-License-Identifier: Apache-2.0
// q8_0 in two planes: the upper four bits of all quants of a matrix, with the scales, in front of the lower
// four of all. The upper plane by itself is a coarse form of the matrix, from which it can be foretold which
// rows matter; the lower one makes them exact. Values, bytes and rounding are those of q8_0.
//
// A row of the upper plane is the scales of its blocks, binary16, and their halves of quants; one of the
// lower plane is halves alone. Byte i of a block's half holds the bits of quant i in its low half and those
// of quant i + 16 in its high half; upper bits are stored 8 too large, so that they have no sign.
//
// Rows have no bytes of their own: a view's row_bytes is what a row takes of both planes, and only a whole
// matrix can be looked at.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/q8_0.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q8_0_planes {
  using whole = q8_0;
  static constexpr int plane_bits = 4;                 // of a quant, in either plane
  static constexpr index half_bytes = block_size / 2;  // of the quants of a block, in either plane
  static constexpr int quant_offset = whole::quant_offset;

  /// Quants, put together of bits without sign, are this much larger.
  static constexpr int merged_offset = 128;
  /// What upper bits u, as they are stored, stand for without the lower ones: the middle of what those leave
  /// open, 16 (u - 8) + 7.5 = 16 (u - coarse_offset).
  static constexpr float coarse_step = 16, coarse_offset = 7.53125f;
  /// What lower bits add to that: themselves, less the middle.
  static constexpr float fine_offset = 7.5f;

  static void split(const std::uint8_t* quants, std::uint8_t* upper, std::uint8_t* lower) {
    for (index i = 0; i < half_bytes; ++i) {
      const int first = quants[i] ^ 128, last = quants[i + half_bytes] ^ 128;
      upper[i] = static_cast<std::uint8_t>(first >> 4 | (last & 240));
      lower[i] = static_cast<std::uint8_t>((first & 15) | last << 4);
    }
  }
  /// The same way back; in arrays of its own, so that compilers see that nothing overlaps.
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
struct format_traits<q8_0_planes> {
  static constexpr const char* name = "q8_0_planes";
  static constexpr index block = block_size, group = block_size;
  static constexpr std::size_t bytes = format_traits<q8_0>::bytes;
  static constexpr float largest = format_traits<q8_0>::largest;
  static constexpr bool multiplied = true;
};

/// A format of two planes, which is another format, Q::whole, split.
template <class Q>
concept plane_format = block_format<Q> && requires {
  typename Q::whole;
};

/// Where a matrix [rows, blocks of a row] of such a format has its parts, in bytes from its beginning.
template <plane_format Q>
struct plane_layout {
  index rows;
  index blocks;

  static constexpr index scale_bytes = sizeof(f16);
  constexpr index upper_bytes() const { return blocks * (Q::half_bytes + scale_bytes); }
  constexpr index lower_bytes() const { return blocks * Q::half_bytes; }
  constexpr index upper_at(index i) const { return i * upper_bytes(); }
  constexpr index lower_at(index i) const { return rows * upper_bytes() + i * lower_bytes(); }
};

}  // namespace corematching

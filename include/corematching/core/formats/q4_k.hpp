// SPDX-License-Identifier: Apache-2.0
// ggml's q4_k, as files of GGUF store it: blocks of 256 elements in eight groups of 32. A group has a quant
// of four bits for each element, and a scale and a minimum of six bits, which are multiples of the block's
// own:
//   x = (d scale) q - (dmin minimum)
// A block is d and dmin, two binary16, 12 bytes of scales and minima, and 128 bytes of quants, of which byte
// i of each 32 holds element i of an even group in its low half and of the odd group after it in its high
// half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q4_k {
  static constexpr index group = 32, groups = 8;

  /// A block, as it is stored.
  struct stored {
    f16 scale;
    f16 minimum;
    std::uint8_t of_groups[12];
    std::uint8_t quants[groups / 2][group];
  };

  /// The scale and the minimum of a group, as integers.
  struct factors {
    int scale;
    int minimum;
  };

  /// Bytes 0..3 hold the scales of the first four groups and 4..7 their minima, in six bits each. The others
  /// have the lower four of their bits in bytes 8..11, of the minimum above those of the scale, and the upper
  /// two where the bytes of the group four before them have two to spare.
  static constexpr factors factors_of(const std::uint8_t (&packed)[12], index i) {
    const int scale = packed[i % 4], minimum = packed[4 + i % 4];
    if (i < 4) return {scale & 63, minimum & 63};
    const int low = packed[4 + i];
    return {(low & 15) | (scale >> 6) << 4, low >> 4 | (minimum >> 6) << 4};
  }
};

template <>
struct format_traits<q4_k> {
  static constexpr const char* name = "q4_k";
  static constexpr index block = q4_k::group * q4_k::groups, group = q4_k::group;
  static constexpr std::size_t bytes = sizeof(q4_k::stored);
  static constexpr float largest = 63 * (15 + 1) * format_traits<f16>::largest;
  static constexpr bool multiplied = false;

  // Both products are exact: they have 11 + 6 + 4 and 11 + 6 bits. Only the difference is rounded, whether
  // the compiler fuses it with a product or not.
  static void widen(const std::byte* row, index, index first, index count, float* to) {
    for (index at = first; at < first + count; at += group, to += group) {
      q4_k::stored stored;
      std::memcpy(&stored, row + at / format_traits::block * index{bytes}, sizeof stored);
      const index i = at % format_traits::block / group;
      const auto [scale, minimum] = q4_k::factors_of(stored.of_groups, i);
      const float step = to_float(stored.scale) * static_cast<float>(scale);
      const float offset = to_float(stored.minimum) * static_cast<float>(minimum);
      for (index j = 0; j < group; ++j)
        to[j] = step * static_cast<float>((stored.quants[i / 2][j] >> (4 * (i % 2))) & 15) - offset;
    }
  }
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// What the formats of ggml have in common that are computed with as files of GGUF store them: blocks of 256
// weights, in groups whose scales, and in some minima, are integers times the block's own.
//
// Source of the layouts: https://github.com/ggml-org/ggml (ggml-common.h, ggml-quants.c).
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

/// Of such a format: how many weights share a scale, and whether there is a minimum. It has beside that a
/// type `stored`, a block as files have it, of which
///   static bool is_finite(const stored&)
///     says whether its own scale and minimum are finite, and thereby all weights
template <index Group, bool Minimum>
struct super_blocks {
  static constexpr index block = 256, group = Group, groups = block / group;
  static constexpr bool has_minimum = Minimum;
};

template <class Q>
concept super_format = block_format<Q> && std::derived_from<Q, super_blocks<Q::group, Q::has_minimum>>;

/// The beginning of a block that has minima, in eight groups.
struct packed_factors {
  f16 scale;
  f16 minimum;
  std::uint8_t of_groups[12];

  struct factors {
    float scale;
    float minimum;
  };

  bool is_finite() const { return std::isfinite(to_float(scale)) && std::isfinite(to_float(minimum)); }

  /// Those of group `i`; both are exact, products of 11 and 6 bits. Bytes 0..3 hold the scales of the first
  /// four groups and 4..7 their minima, in six bits each. The others have the lower four of their bits in
  /// bytes 8..11, of the minimum above those of the scale, and the upper two where the bytes of the group
  /// four before them have two to spare.
  factors of_group(index i) const {
    int scales = of_groups[i % 4], minima = of_groups[4 + i % 4];
    if (i < 4) {
      scales &= 63;
      minima &= 63;
    } else {
      const int low = of_groups[4 + i];
      scales = (low & 15) | (scales >> 6) << 4;
      minima = low >> 4 | (minima >> 6) << 4;
    }
    return {to_float(scale) * static_cast<float>(scales), to_float(minimum) * static_cast<float>(minima)};
  }
};

namespace detail {

/// The traits of such a format. Rows are read in pieces of 32 weights, of which Q::widen(block, piece, to)
/// makes one binary32.
template <class Q>
struct super_traits {
  static constexpr index block = Q::block, group = 32;
  static constexpr std::size_t bytes = sizeof(typename Q::stored);
  static constexpr float largest = 0;  // nothing is rounded to it
  static constexpr bool multiplied = true;

  static void widen(const std::byte* row, index, index first, index count, float* to) {
    const auto* const blocks = reinterpret_cast<const typename Q::stored*>(row);
    for (index at = first; at < first + count; at += group, to += group)
      Q::widen(blocks[at / block], at % block / group, to);
  }
};

}  // namespace detail
}  // namespace corematching

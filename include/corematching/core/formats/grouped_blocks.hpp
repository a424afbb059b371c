// SPDX-License-Identifier: Apache-2.0
// What the block formats q8_0 and q4_0 have in common: 32 consecutive weights of a row share one binary16
// scale. Values and rounding are ggml's (https://github.com/ggml-org/ggml, ggml-quants.c), so that figures
// compare type by type. The layout is not: blocks stand in groups of eight, the last of a row may be smaller,
// and of each group first all scales, then all quants (`row_layout`). So a kernel loads eight scales at once,
// reads a row as one stream, and finds the quants of whole groups at multiples of 16 bytes.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

/// Consecutive weights of a row that share a scale where weights are multiplied as integers; tokens are
/// rounded to integers in blocks as long.
inline constexpr index block_size = 32;

/// Blocks whose scales stand together.
inline constexpr index group_blocks = 8;

/// The traits of such a format, of which `Q` says
///   index quant_bytes     bytes of the quants of a block
///   int quant_offset      what quants are stored larger by
///   int largest_quant     their largest magnitude without that
///   static f16 quantise(const float* x, std::uint8_t* quants)
///     writes the quants of a block and returns its scale
///   static void widen(const std::uint8_t* quants, float scale, float* x)
template <class Q>
struct grouped_blocks;

/// A format with these traits.
template <class Q>
concept grouped_format = block_format<Q> && std::derived_from<format_traits<Q>, grouped_blocks<Q>>;

/// Bytes of the quants of one block, and of a whole group.
template <class Q>
inline constexpr index quant_bytes = Q::quant_bytes;
template <class Q>
inline constexpr index group_bytes = group_blocks*(quant_bytes<Q> + index{sizeof(f16)});

/// Where a row of `blocks` blocks has its parts, in bytes from its beginning.
template <class Q>
struct row_layout {
  index blocks;

  constexpr index scale_at(index b) const {
    return b / group_blocks * group_bytes<Q> + b % group_blocks * index{sizeof(f16)};
  }
  constexpr index quants_at(index b) const {
    const index in_group = std::min(group_blocks, blocks - b / group_blocks * group_blocks);
    return b / group_blocks * group_bytes<Q> + in_group * index{sizeof(f16)} +
           b % group_blocks * quant_bytes<Q>;
  }
};

template <class Q>
struct grouped_blocks {
  static constexpr index block = block_size, group = block_size;
  static constexpr std::size_t bytes = Q::quant_bytes + sizeof(f16);
  static constexpr float largest = Q::largest_quant * format_traits<f16>::largest;
  static constexpr bool multiplied = true;

  static void widen(const std::byte* row, index cols, index first, index count, float* to) {
    const row_layout<Q> layout{cols / block_size};
    for (index b = first / block_size; b < (first + count) / block_size; ++b, to += block_size) {
      f16 scale;
      std::memcpy(&scale, row + layout.scale_at(b), sizeof scale);
      Q::widen(reinterpret_cast<const std::uint8_t*>(row + layout.quants_at(b)), to_float(scale), to);
    }
  }

  static void store(const float* from, index cols, std::byte* to) {
    const row_layout<Q> layout{cols / block_size};
    for (index b = 0; b < layout.blocks; ++b) {
      auto* quants = reinterpret_cast<std::uint8_t*>(to + layout.quants_at(b));
      const f16 scale = Q::quantise(from + b * block_size, quants);
      std::memcpy(to + layout.scale_at(b), &scale, sizeof scale);
    }
  }
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Matrices in two planes: the upper bits of all weights in front of the lower bits of all. The upper plane by
// itself is a coarse form of the matrix, from which it can be foretold which rows matter; the lower one makes
// them exact. Values, bytes and rounding are those of the format that is split.
//
// Of formats of grouped blocks, quants are split. A row of the upper plane is the scales of its blocks,
// binary16, and their bits; one of the lower plane is bits alone. A byte holds those of quants that stand a
// part of the block apart, the first of them lowest: of halves of bytes i and i + 16, of quarters i, i + 8,
// i + 16 and i + 24. Quants are stored without sign. Super-blocks are split alike: what stands in front of
// the upper bits are their packed factors. Of numbers of 16 bits, each plane has a byte.
//
// Rows have no bytes of their own: a view's row_bytes is what a row takes of both planes, and only a whole
// matrix can be looked at.
#pragma once

#include <cstddef>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

/// What a format says of itself that splits quants of `Whole`, with `Bits` bits in either plane. Beside that
/// it has
///   static void split(const std::uint8_t* quants, std::uint8_t* upper, std::uint8_t* lower)
///     the bits of a block of `Whole`
///   static std::array<std::uint8_t, quant_bytes<Whole>> merged(upper, lower)
///     the same way back
template <class Whole, int Bits>
struct quant_planes {
  using whole = Whole;
  static constexpr int plane_bits = Bits;
  static constexpr index half_bytes = block_size * Bits / 8;  // of the quants of a block, in either plane
  static constexpr index scale_bytes = sizeof(f16);           // of a block, in the upper one
  static constexpr bool planes_add_up = true;
  static constexpr int quant_offset = Whole::quant_offset;

  /// Quants, put together of bits without sign, are this much larger.
  static constexpr int merged_offset = 1 << (2 * Bits - 1);
  /// What upper bits u, as they are stored, stand for without the lower ones:
  /// the middle of what those leave open, as 16 (u - 8) + 7.5 = 16 (u
  /// - 7.53125) of four bits.
  static constexpr float coarse_step = 1 << Bits;
  /// What lower bits add to that: themselves, less the middle.
  static constexpr float fine_offset = (coarse_step - 1) / 2;
  static constexpr float coarse_offset = (merged_offset - fine_offset) / coarse_step;
};

/// What a format says of itself that splits super-blocks with minima, whose quants of 2 `Bits` bits have no
/// sign. Beside that it has
///   static void split(const whole::stored&, std::uint8_t* upper, std::uint8_t* lower)
///     the bits of a block
///   static void merge(const std::uint8_t* upper, const std::uint8_t* lower, std::uint8_t* quants)
///     the same way back, of a piece of 32 weights
template <class Whole, int Bits>
struct super_planes {
  using whole = Whole;
  static constexpr index group = Whole::group;
  static constexpr bool has_minimum = true;
  static constexpr int plane_bits = Bits;
  static constexpr index half_bytes = Whole::block * Bits / 8, piece_bytes = block_size * Bits / 8;
  static constexpr index scale_bytes = sizeof(packed_factors);
  static constexpr bool planes_add_up = true;

  // As quant_planes has them.
  static constexpr int merged_offset = 0;
  static constexpr float coarse_step = 1 << Bits;
  static constexpr float fine_offset = (coarse_step - 1) / 2;
  static constexpr float coarse_offset = -fine_offset / coarse_step;

  /// Of group `i` of a block, whose quants may be split or not.
  template <class Block>
  static packed_factors::factors factors_of(const Block& from, index i) {
    return from.factors.of_group(i);
  }
};

/// What a format says of itself that splits numbers of `Whole` into their bytes. Beside that it has
///   static constexpr std::array<std::uint8_t, 2> split(Whole)
///     the upper and the lower byte
///   static constexpr Whole merged(upper, lower), middle(upper)
///     the same way back, and what the upper byte stands for without the lower one
template <class Whole>
struct number_planes {
  using whole = Whole;
  static constexpr index half_bytes = 1, scale_bytes = 0;  // a block is one number
  /// Whether products with both planes are the sum of those with each. What lower bits of a number are worth,
  /// the exponent in the upper ones says: it takes both to make a coarse product exact.
  static constexpr bool planes_add_up = false;
};

/// The traits of such formats, but for their name.
template <class Q>
struct plane_traits {
  static constexpr index block = format_traits<typename Q::whole>::block,
                         group = format_traits<typename Q::whole>::group;
  static constexpr std::size_t bytes = format_traits<typename Q::whole>::bytes;
  static constexpr float largest = format_traits<typename Q::whole>::largest;
  static constexpr bool multiplied = true;
};

/// A format that splits the quants of blocks, of grouped ones or of super-blocks, and one that splits
/// numbers.
template <class Q>
concept quant_plane_format = block_format<Q> && plane_format<Q> && block_format<typename Q::whole>;
template <class Q>
concept grouped_plane_format = quant_plane_format<Q> && grouped_format<typename Q::whole>;
template <class Q>
concept super_plane_format = quant_plane_format<Q> && super_format<typename Q::whole>;
template <class Q>
concept number_plane_format = block_format<Q> && plane_format<Q> && element_format<typename Q::whole>;

/// Where a matrix [rows, blocks of a row] of such a format has its parts, in bytes from its beginning.
template <plane_format Q>
struct plane_layout {
  index rows;
  index blocks;

  /// Of a row of `cols` weights.
  static constexpr plane_layout of(index rows, index cols) { return {rows, cols / format_traits<Q>::block}; }

  constexpr index upper_bytes() const { return blocks * (Q::half_bytes + Q::scale_bytes); }
  constexpr index lower_bytes() const { return blocks * Q::half_bytes; }
  constexpr index upper_at(index i) const { return i * upper_bytes(); }
  constexpr index lower_at(index i) const { return rows * upper_bytes() + i * lower_bytes(); }
};

}  // namespace corematching

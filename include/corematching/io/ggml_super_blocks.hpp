// SPDX-License-Identifier: Apache-2.0
// Blocks of 256 weights as GGUF files store them, in groups of 16 or 32 whose scales, and in some minima, are
// integers times the block's own. They are taken apart as ggml_blocks.hpp says. A scale has 11 bits of d and
// at most 7 of the group's, so it is exact in binary32, and so are its products with quants.
//
// Source of the layouts: https://github.com/ggml-org/ggml (ggml-common.h, ggml-quants.c).
#pragma once

#include <cstdint>
#include <cstring>

#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/index.hpp"
#include "corematching/io/ggml_blocks.hpp"

namespace corematching::io {

namespace detail {

template <index Bytes, index Group, bool Minimum>
struct super_block {
  static constexpr index block = 256, group = Group, bytes = Bytes;
  static constexpr bool has_minimum = Minimum;
};

/// Scale and minimum of each of the two halves of a piece.
inline void set_half(widened_block& to, index half, float scale, float minimum = -0.0f) {
  to.scales[half] = scale;
  to.minima[half] = minimum;
}

/// Bits 2 k and 2 k + 1 of byte i of each 32, k = piece % 4.
inline int two_bits(const std::uint8_t* from, index piece, index i) {
  return (from[piece / 4 * 32 + i] >> (2 * (piece % 4))) & 3;
}

/// Factors of a group of the types whose blocks begin with them all.
inline void set_packed_factors(const std::uint8_t* from, index piece, widened_block& to) {
  packed_factors packed;
  std::memcpy(&packed, from, sizeof packed);
  const auto [scale, minimum] = packed.of_group(piece);
  set_factors(to, scale, -minimum);
}

/// Nibbles of 32 bytes: the low ones in even pieces, the high ones in odd ones.
inline int paired_nibble(const std::uint8_t* from, index piece, index i) {
  return (from[piece / 2 * 32 + i] >> (4 * (piece % 2))) & 15;
}

}  // namespace detail

/// 16 bytes with scale and minimum in four bits each, quants of two bits, d, dmin
struct ggml_q2_k : detail::super_block<84, 16, true> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    const float scale = detail::half_at(from + 80), minimum = detail::half_at(from + 82);
    for (index half = 0; half < 2; ++half) {
      const int both = from[2 * piece + half];
      detail::set_half(to, half, scale * static_cast<float>(both & 15),
                       -(minimum * static_cast<float>(both >> 4)));
    }
    for (index i = 0; i < block_size; ++i)
      to.quants[i] = static_cast<std::int8_t>(detail::two_bits(from + 16, piece, i));
  }
};

/// The third bits of quants, piece by piece in 32 bytes; quants of two bits; scales; d. Where the third bit
/// is not set, the quant is 4 less. Of 16 scales in six bits, 32 too large, the lower four stand as nibbles
/// in 8 bytes and the upper two in 4.
struct ggml_q3_k : detail::super_block<110, 16, false> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    const std::uint8_t* const scales = from + 96;
    const float unit = detail::half_at(from + 108);
    for (index half = 0; half < 2; ++half) {
      const index k = 2 * piece + half;
      const int low = scales[k % 8] >> (4 * (k / 8)) & 15, high = scales[8 + k % 4] >> (2 * (k / 4)) & 3;
      detail::set_half(to, half, unit * static_cast<float>((low | high << 4) - 32));
    }
    for (index i = 0; i < block_size; ++i) {
      const int third = (from[i] >> piece) & 1;
      to.quants[i] = static_cast<std::int8_t>(detail::two_bits(from + 32, piece, i) - (third != 0 ? 0 : 4));
    }
  }
};

/// d, dmin, scales and minima in six bits, quants of four bits
struct ggml_q4_k : detail::super_block<144, 32, true> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    detail::set_packed_factors(from, piece, to);
    for (index i = 0; i < block_size; ++i)
      to.quants[i] = static_cast<std::int8_t>(detail::paired_nibble(from + 16, piece, i));
  }
};

/// The same with the fifth bits of quants, piece by piece in 32 bytes, in front of the nibbles
struct ggml_q5_k : detail::super_block<176, 32, true> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    detail::set_packed_factors(from, piece, to);
    for (index i = 0; i < block_size; ++i) {
      const int fifth = (from[16 + i] >> piece) & 1;
      to.quants[i] = static_cast<std::int8_t>(detail::paired_nibble(from + 48, piece, i) | fifth << 4);
    }
  }
};

/// Nibbles, of which a byte has two of pieces two apart; two more bits; scales with sign; d. Quants are 32
/// too large.
struct ggml_q6_k : detail::super_block<210, 16, false> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    const float unit = detail::half_at(from + 208);
    for (index half = 0; half < 2; ++half) {
      const auto scale = static_cast<std::int8_t>(from[192 + 2 * piece + half]);
      detail::set_half(to, half, unit * static_cast<float>(scale));
    }
    const std::uint8_t* const nibbles = from + piece / 4 * 64 + piece % 2 * 32;
    for (index i = 0; i < block_size; ++i) {
      const int low = (nibbles[i] >> (4 * (piece % 4 / 2))) & 15;
      to.quants[i] = static_cast<std::int8_t>((low | detail::two_bits(from + 128, piece, i) << 4) - 32);
    }
  }
};

/// d; scales in six bits, 32 too large, the upper two of each in 16 bits together and the lower four as
/// nibbles; quants as in iq4_nl
struct ggml_iq4_xs : detail::super_block<136, 32, false> {
  static void unpack(const std::uint8_t* from, index piece, widened_block& to) {
    std::uint16_t high;
    std::memcpy(&high, from + 2, sizeof high);
    const int scale = (from[4 + piece / 2] >> (4 * (piece % 2)) & 15) | (high >> (2 * piece) & 3) << 4;
    detail::set_factors(to, detail::half_at(from) * static_cast<float>(scale - 32));
    detail::unpack_nibbles(from + 8 + 16 * piece, to,
                           [](int nibble, index) { return detail::nonlinear_quants[nibble]; });
  }
};

}  // namespace corematching::io

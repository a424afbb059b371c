// SPDX-License-Identifier: Apache-2.0
// Tokens as products with quants in two planes take them. A byte of a plane holds the bits of several quants
// of a block, which stand apart in it; the integers that a token is rounded to are put into the order in
// which those come out of a vector of such bytes, so that nothing is moved between lanes.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// The largest integer that such tokens are rounded to. One of 16 bits is multiplied as two bytes with sign,
/// 256 high + low, and 128 is none.
template <class Quant>
inline constexpr float largest_plane_quant =
    std::is_same_v<Quant, std::int16_t> ? 256 * 127 + 127 : largest_quant<Quant>;

// With VNNI products of bytes may be as large as they are; elsewhere those of quants of up to four bits.
#if COREMATCHING_HAS_VNNI
using plane_bytes = wide_u8;
using token_bytes = wide_i8;
#else
using plane_bytes = i8x32;
using token_bytes = i8x32;
inline wide_i32 multiply_add_quads(i8x32 a, i8x32 b, wide_i32 c) {
  return multiply_byte_quads(a, b) + c;
}
#endif

/// The part of a token that meets one vector of a plane, in which quants have `Bits` bits. Quants are those
/// of whole blocks, and sums those of products with bits without sign; each lane belongs to one block.
template <class Quant, int Bits>
struct plane_token {
  using stored = std::int8_t;
  static constexpr index bytes = sizeof(plane_bytes);  // of the plane
  static constexpr index parts = 8 / Bits;             // in which a vector's bytes are taken apart
  static constexpr index size = bytes * parts * index{sizeof(Quant)};

  /// Puts the quants into order: those of each part, first all high bytes where they have two.
  static void arrange(const Quant* quants, stored* to) {
    constexpr index half = block_size / parts;
    for (index p = 0; p < parts; ++p)
      for (index i = 0; i < bytes; ++i) {
        const int quant = quants[i / half * block_size + p * half + i % half];
        if constexpr (sizeof(Quant) == 1) {
          to[p * bytes + i] = static_cast<stored>(quant);
        } else {
          const auto low = static_cast<stored>(quant & 255);
          to[p * bytes + i] = static_cast<stored>((quant - low) / 256);
          to[(parts + p) * bytes + i] = low;
        }
      }
  }

  explicit plane_token(const stored* from) {
    for (std::size_t i = 0; i < quants_.size(); ++i) quants_[i] = token_bytes::load(from + index(i) * bytes);
  }

  using weights = std::array<plane_bytes, parts>;

  /// The quants that a vector of one plane holds.
  static weights taken_apart(const std::uint8_t* plane) {
    const plane_bytes bits = plane_bytes::load(plane), mask = broadcast((1 << Bits) - 1);
    if constexpr (Bits == 4) return {bits & mask, bits.template shifted_right<4>() & mask};
    if constexpr (Bits == 2)
      return {bits & mask, bits.template shifted_right<2>() & mask, bits.template shifted_right<4>() & mask,
              bits.template shifted_right<6>() & mask};
  }
  /// Those of both planes, put together.
  static weights taken_apart(const std::uint8_t* upper, const std::uint8_t* lower) {
    const plane_bytes high = plane_bytes::load(upper), low = plane_bytes::load(lower);
    const plane_bytes uppers = broadcast(Bits == 4 ? 0xf0 : 0xcc);  // of whole quants, their upper halves
    const plane_bytes even = select_bits(uppers, high.template shifted_left<Bits>(), low),
                      odd = select_bits(uppers, high, low.template shifted_right<Bits>());
    if constexpr (Bits == 4) return {even, odd};
    const plane_bytes mask = broadcast(15);
    if constexpr (Bits == 2)
      return {even & mask, odd & mask, even.template shifted_right<4>() & mask,
              odd.template shifted_right<4>() & mask};
  }

  wide_i32 times(const weights& w) const {
#if COREMATCHING_HAS_AVX2 && !COREMATCHING_HAS_VNNI
    if constexpr (sizeof(Quant) == 1) {
      // Quants of four bits at most: products of all parts can be summed with 16 bits.
      static_assert(Bits == 2 && 2 * parts * 15 * 127 <= 32767);
      i16x16 pairs = i16x16::zero();
      for (std::size_t i = 0; i < parts; ++i)
        pairs = multiply_add_pairs(u8x32{w[i].lanes}, quants_[i], pairs);
      return multiply_add_pairs(pairs, i16x16::broadcast(1), wide_i32::zero());
    }
#endif
    wide_i32 result = wide_i32::zero();
    for (std::size_t i = 0; i < quants_.size(); ++i) {
      if constexpr (sizeof(Quant) > 1)
        if (i == parts) result = result.template shifted_left<8>();
      result = multiply_add_quads(w[i % parts], quants_[i], result);
    }
    return result;
  }

 private:
  static plane_bytes broadcast(int byte) {
    return plane_bytes::broadcast(static_cast<std::uint8_t>(byte));
  }

  std::array<token_bytes, parts * sizeof(Quant)> quants_;
};

#if !COREMATCHING_HAS_VNNI

/// Halves of bytes with 16 bits, in lanes of as many: of bytes at even places, then of those at odd ones.
template <>
struct plane_token<std::int16_t, 4> {
  using stored = std::int16_t;
  static constexpr index bytes = sizeof(i16x16), lanes = bytes / 2, size = 4 * lanes;

  static void arrange(const std::int16_t* quants, stored* to) {
    constexpr index half = block_size / 2;
    for (index i = 0; i < bytes; ++i)
      for (index p = 0; p < 2; ++p)
        to[(i % 2 * 2 + p) * lanes + i / 2] = quants[i / half * block_size + p * half + i % half];
  }

  explicit plane_token(const stored* from) {
    for (std::size_t i = 0; i < quants_.size(); ++i) quants_[i] = i16x16::load(from + index(i) * lanes);
  }

  using weights = std::array<i16x16, 4>;

  static weights taken_apart(const std::uint8_t* plane) {
    const i16x16 bits = i16x16::load_bytes(plane), mask = i16x16::broadcast(15);
    return {bits & mask, bits.shifted_right<4>() & mask, bits.shifted_right<8>() & mask,
            bits.shifted_right<12>()};
  }
  static weights taken_apart(const std::uint8_t* upper, const std::uint8_t* lower) {
    const i16x16 high = i16x16::load_bytes(upper), low = i16x16::load_bytes(lower),
                 uppers = i16x16::broadcast(static_cast<std::int16_t>(0xf0f0)),
                 lowers = i16x16::broadcast(0x0f0f), byte = i16x16::broadcast(255);
    const i16x16 first = (high.shifted_left<4>() & uppers) | (low & lowers),
                 last = (high & uppers) | (low.shifted_right<4>() & lowers);
    return {first & byte, last & byte, first.shifted_right<8>(), last.shifted_right<8>()};
  }

  i32x8 times(const weights& w) const {
    i32x8 result = i32x8::zero();
    for (std::size_t i = 0; i < 4; ++i) result = multiply_add_pairs(w[i], quants_[i], result);
    return result;
  }

 private:
  std::array<i16x16, 4> quants_;
};

#endif

}  // namespace detail

/// One token in groups of blocks, the last one filled up with zeros.
template <class Quant, int Bits>
struct arranged_token {
  using part = detail::plane_token<Quant, Bits>;

  const typename part::stored* quants;
  const float* scales;
  const float* sums;  // scale times the sum of the quants of each block
};

/// Memory for a few tokens in that form.
template <class Quant, int Bits>
class plane_tokens {
  using part = detail::plane_token<Quant, Bits>;

 public:
  /// Rounds all rows of `x`, which are whole blocks.
  void assign(matrix_view<const float> x) {
    assert(x.cols % block_size == 0);
    groups_ = (x.cols / block_size + group_blocks - 1) / group_blocks;
    quants_.at_least(x.rows * groups_ * group_size);
    scales_.at_least(2 * x.rows * groups_ * group_blocks);
    for (index i = 0; i < x.rows; ++i)
      for (index g = 0; g < groups_; ++g) {
        const index first = g * group_quants;
        assign_group(i, g, {x.row(i).data + first, std::min(group_quants, x.cols - first)});
      }
  }

  arranged_token<Quant, Bits> operator[](index row) {
    const float* const scales = scales_of(row);
    return {quants_of(row), scales, scales + groups_ * group_blocks};
  }

 private:
  static constexpr index group_quants = group_blocks * block_size;
  static constexpr index part_quants = part::bytes * 8 / Bits;
  static constexpr index group_size = group_quants / part_quants * part::size;

  typename part::stored* quants_of(index row) { return quants_.at_least(0) + row * groups_ * group_size; }
  float* scales_of(index row) { return scales_.at_least(0) + 2 * row * groups_ * group_blocks; }

  void assign_group(index row, index group, vector_view<const float> x) {
    Quant quants[group_quants] = {};
    float* const scales = scales_of(row) + group * group_blocks;
    float* const sums = scales + groups_ * group_blocks;
    std::fill_n(scales, group_blocks, 0.0f);
    std::fill_n(sums, group_blocks, 0.0f);
    for (index b = 0; b < x.size / block_size; ++b)
      sums[b] = detail::round_block(x.data + b * block_size, quants + b * block_size, scales[b],
                                    detail::largest_plane_quant<Quant>);
    auto* to = quants_of(row) + group * group_size;
    for (index q = 0; q < group_quants; q += part_quants, to += part::size) part::arrange(quants + q, to);
  }

  growing_buffer<typename part::stored> quants_;
  growing_buffer<float> scales_;
  index groups_ = 0;  // of a token
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

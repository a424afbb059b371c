// SPDX-License-Identifier: Apache-2.0
// Formats that weights of others are moved to, value by value: quants of eight bits with a binary32 scale,
// and in some a minimum, for each 16 or 32 consecutive weights of a row,
//   x = scale q + minimum
// which holds whatever ggml's block types stand for, exactly. Nothing is ever rounded to them.
//
// A block is the scales of its 32 weights, then the minima, then the quants.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

/// Of formats to which weights are moved: the scale's share of a row, and whether there is a minimum.
template <index Group, bool Minimum>
struct moved_quants {
  static_assert(block_size % Group == 0);
  static constexpr index group = Group;
  static constexpr bool has_minimum = Minimum;
  /// Of a block of 32.
  static constexpr index scales = block_size / Group;
};

/// Block_size consecutive weights of a row, whatever they are stored as: weight i is
/// scales[i / 16] quants[i] + minima[i / 16]. Where a type has no minimum, it is -0, which changes no sum.
struct widened_block {
  static constexpr index group = 16;
  std::int8_t quants[block_size];
  float scales[block_size / group];
  float minima[block_size / group];
};

template <index Group, bool Minimum>
struct wide_blocks : moved_quants<Group, Minimum> {
  using moved = moved_quants<Group, Minimum>;
  static constexpr index factors = moved::scales * (Minimum ? 2 : 1);  // numbers in front of the quants
  static constexpr index bytes = factors * index{sizeof(float)} + block_size;

  static void move(const widened_block& from, std::byte* to) {
    float numbers[factors];
    for (index i = 0; i < moved::scales; ++i) {
      const index place = i * Group / widened_block::group;
      numbers[i] = from.scales[place];
      if constexpr (Minimum) numbers[moved::scales + i] = from.minima[place];
    }
    std::memcpy(to, numbers, sizeof numbers);
    std::memcpy(to + sizeof numbers, from.quants, sizeof from.quants);
  }

  static void widen(const std::byte* block, float* to) {
    float numbers[factors];
    std::int8_t quants[block_size];
    std::memcpy(numbers, block, sizeof numbers);
    std::memcpy(quants, block + sizeof numbers, sizeof quants);
    for (index i = 0; i < block_size; ++i) {
      to[i] = numbers[i / Group] * static_cast<float>(quants[i]);
      if constexpr (Minimum) to[i] += numbers[moved::scales + i / Group];
    }
  }
};

struct wide_16 : wide_blocks<16, false> {};
struct wide_16m : wide_blocks<16, true> {};
struct wide_32m : wide_blocks<32, true> {};

namespace detail {

template <index Group, bool Minimum>
struct wide_traits {
  using format = wide_blocks<Group, Minimum>;
  static constexpr index block = block_size, group = block_size;
  static constexpr std::size_t bytes = format::bytes;
  static constexpr float largest = 0;  // nothing is rounded to it
  static constexpr bool multiplied = true;

  static void widen(const std::byte* row, index, index first, index count, float* to) {
    for (index b = first / block_size; b < (first + count) / block_size; ++b, to += block_size)
      format::widen(row + b * format::bytes, to);
  }
};

}  // namespace detail

template <>
struct format_traits<wide_16> : detail::wide_traits<16, false> {
  static constexpr const char* name = "wide_16";
};
template <>
struct format_traits<wide_16m> : detail::wide_traits<16, true> {
  static constexpr const char* name = "wide_16m";
};
template <>
struct format_traits<wide_32m> : detail::wide_traits<32, true> {
  static constexpr const char* name = "wide_32m";
};

/// A format of such blocks along the rows.
template <class Q>
concept wide_format = block_format<Q> && std::derived_from<Q, wide_blocks<Q::group, Q::has_minimum>>;

}  // namespace corematching

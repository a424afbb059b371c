// SPDX-License-Identifier: Apache-2.0
// Formats of matrices [neurons, columns] whose scales are shared down the columns: those of a transposed
// matrix whose rows were quantised in blocks. 16 or 32 consecutive neurons have a binary32 scale, and in some
// a minimum, for each column,
//   w[n][j] = scale[n / group][j] q[n][j] + minimum[n / group][j]
// so that a neuron is still one row of quants. As wide_blocks.hpp, they are moved to and never rounded to.
//
// Quants have eight bits and a sign, or four and none; without a minimum, those of four are stored larger by
// eight. Of each 32 columns byte i of 16 then holds column i in its low half and column i + 16 in its high
// half.
//
// A block of neurons is its row of scales, its row of minima and the rows of its neurons' quants. Rows have
// no bytes of their own: a view's row_bytes is a neuron's share of its block, and only whole matrices can be
// looked at.
#pragma once

#include <concepts>
#include <cstddef>

#include "corematching/core/formats/traits.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

template <index Group, bool Minimum, int Bits = 8>
struct neuron_blocks : moved_quants<Group, Minimum> {
  static constexpr int bits = Bits;
  static constexpr int quant_offset = Bits == 4 && !Minimum ? 8 : 0;
};

struct down_16 : neuron_blocks<16, false> {};
struct down_16m : neuron_blocks<16, true> {};
struct down_32 : neuron_blocks<32, false> {};
struct down_32m : neuron_blocks<32, true> {};
struct down_4bit_32 : neuron_blocks<32, false, 4> {};
struct down_4bit_32m : neuron_blocks<32, true, 4> {};

namespace detail {

template <index Group, bool Minimum, int Bits = 8>
struct neuron_traits {
  static constexpr index block = block_size, group = block_size;
  static constexpr std::size_t bytes =
      block_size * Bits / 8 + block_size / Group * (Minimum ? 2 : 1) * index{sizeof(float)};
  static constexpr float largest = 0;  // nothing is rounded to it
  static constexpr bool multiplied = true;
};

}  // namespace detail

template <>
struct format_traits<down_16> : detail::neuron_traits<16, false> {
  static constexpr const char* name = "down_16";
};
template <>
struct format_traits<down_16m> : detail::neuron_traits<16, true> {
  static constexpr const char* name = "down_16m";
};
template <>
struct format_traits<down_32> : detail::neuron_traits<32, false> {
  static constexpr const char* name = "down_32";
};
template <>
struct format_traits<down_32m> : detail::neuron_traits<32, true> {
  static constexpr const char* name = "down_32m";
};
template <>
struct format_traits<down_4bit_32> : detail::neuron_traits<32, false, 4> {
  static constexpr const char* name = "down_4bit_32";
};
template <>
struct format_traits<down_4bit_32m> : detail::neuron_traits<32, true, 4> {
  static constexpr const char* name = "down_4bit_32m";
};

template <class Q>
concept neuron_format =
    block_format<Q> && std::derived_from<Q, neuron_blocks<Q::group, Q::has_minimum, Q::bits>>;

/// Where a matrix of `cols` columns in such a format has its parts, in bytes from its beginning.
template <neuron_format Q>
struct neuron_layout {
  index cols;

  constexpr index factor_bytes() const { return cols * index{sizeof(float)}; }
  constexpr index header_bytes() const { return factor_bytes() * (Q::has_minimum ? 2 : 1); }
  constexpr index neuron_bytes() const { return cols * Q::bits / 8; }  // of its quants
  constexpr index block_bytes() const { return header_bytes() + Q::group * neuron_bytes(); }
  constexpr index scales_at(index n) const { return n / Q::group * block_bytes(); }
  constexpr index minima_at(index n) const { return scales_at(n) + factor_bytes(); }
  constexpr index quants_at(index n) const {
    return scales_at(n) + header_bytes() + n % Q::group * neuron_bytes();
  }
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Sets of neurons as 64-bit words: neuron n is bit n % 64 of word n / 64, and bits past the last neuron are
// 0. The size of an intersection is then one `and` and one popcount for every 64 neurons.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching::select {

using word = std::uint64_t;

inline constexpr index bits_per_word = 64;

/// Words that hold `bits` bits.
constexpr index words_for(index bits) {
  return (bits + bits_per_word - 1) / bits_per_word;
}

constexpr void set_bit(word* bits, index i) {
  bits[i / bits_per_word] |= word{1} << (i % bits_per_word);
}

constexpr bool test_bit(const word* bits, index i) {
  return (bits[i / bits_per_word] >> (i % bits_per_word) & 1u) != 0;
}

inline namespace COREMATCHING_CPU_ISA {  // popcount is one instruction or a dozen

/// |a|
inline index count(const word* a, index words) {
  index sum = 0;
  for (index w = 0; w < words; ++w) sum += std::popcount(a[w]);
  return sum;
}

/// |a ∩ b|
inline index intersection_count(const word* a, const word* b, index words) {
  index sum = 0;
  for (index w = 0; w < words; ++w) sum += std::popcount(a[w] & b[w]);
  return sum;
}

/// The set of `indices` into `bits[words]`, whose former content is lost. Throws when an index does not fit.
inline void indices_to_bits(index_view<> indices, word* bits, index words) {
  std::fill_n(bits, words, word{0});
  for (const std::int32_t i : indices) {
    require(i >= 0 && i < words * bits_per_word, "index ", i, " does not fit a set of ",
            words * bits_per_word, " bits");
    set_bit(bits, i);
  }
}

/// The members of a set, ascending.
inline std::vector<std::int32_t> bits_to_indices(const word* bits, index words) {
  std::vector<std::int32_t> indices;
  indices.reserve(static_cast<std::size_t>(count(bits, words)));
  for (index w = 0; w < words; ++w) {
    for (word rest = bits[w]; rest != 0; rest &= rest - 1) {
      indices.push_back(static_cast<std::int32_t>(w * bits_per_word + std::countr_zero(rest)));
    }
  }
  return indices;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
// Core tokens by rarity. A neuron that fires for every image token says nothing about any of them, so each is
// weighted by how few image tokens it fires for:
//
//   m(x) = Σ over n in Γ(x) of c_n · w_n,  w_n = round(256 · log2(T / max(1, i_n))),
//
// where i_n of the T image tokens have n in their Γ, and c_n says how much the reference, such as the
// question, has of it. This is not the paper's rule. All of it is in integers, and so the same everywhere.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/bitset.hpp"

namespace corematching::select {

/// w of a neuron that fires for `firing` of `tokens` tokens, firing <= tokens. Each squaring gives one binary
/// digit of the logarithm; the last bits of a library's depend on the library. Nine squarings err by less
/// than 2^-43 of a unit, and no ratio of numbers up to 6,000 lies nearer than 2^-24 to a tie.
constexpr std::int32_t rarity_weight(index firing, index tokens) {
  double ratio =
      static_cast<double>(std::max(tokens, index{1})) / static_cast<double>(std::max(firing, index{1}));
  std::int32_t halves = 0;  // of 1/256, rounded down
  for (; ratio >= 2; ratio /= 2) halves += 512;
  for (std::int32_t digit = 256; digit > 0; digit /= 2) {
    ratio *= ratio;
    if (ratio < 2) continue;
    ratio /= 2;
    halves += digit;
  }
  return (halves + 1) / 2;
}

inline namespace COREMATCHING_CPU_ISA {

/// How many of the `tokens` rows of `bits` (`bits_stride` words apart) have each neuron, into
/// counts[neurons].
inline void count_firing_tokens(const word* bits, index tokens, index bits_stride, index neurons,
                                std::int32_t* counts) {
  // Bit p of the counters of 64 neurons is one word, so a row is added to 64 counters by two instructions for
  // each bit that they have by then; several words at once make up a vector.
  constexpr index width = 8;
  using vector = std::array<word, width>;
  std::array<vector, 32> planes;
  for (index first = 0; first < words_for(neurons); first += width) {
    const index words = std::min(width, words_for(neurons) - first);
    planes.fill({});
    for (index x = 0; x < tokens; ++x) {
      vector carry{};
      std::copy_n(bits + x * bits_stride + first, words, carry.begin());
      const auto digits = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(x + 1)));
      for (std::size_t p = 0; p < digits; ++p)
        for (std::size_t w = 0; w < width; ++w) {
          const word before = planes[p][w];
          planes[p][w] ^= carry[w];
          carry[w] &= before;
        }
    }
    const auto digits = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(tokens)));
    const index last = std::min(neurons, (first + words) * bits_per_word);
    for (index n = first * bits_per_word; n < last; ++n) {
      const auto w = static_cast<std::size_t>(n / bits_per_word - first);
      std::uint32_t sum = 0;
      for (std::size_t p = 0; p < digits; ++p)
        sum |= static_cast<std::uint32_t>(planes[p][w] >> (n % bits_per_word) & 1u) << p;
      counts[n] = static_cast<std::int32_t>(sum);
    }
  }
}

/// Σ of the weights of the neurons that each row of `bits` (rows `bits_stride` words apart) has, into
/// scores[tokens].
inline void sum_weights(const word* bits, index tokens, index bits_stride,
                        vector_view<const std::int64_t> weights, std::int64_t* scores) {
  // The sums over all subsets of eight neurons are made first, so that a row takes one addition for each.
  constexpr index byte = 8;
  std::array<std::array<std::int64_t, 256>, bits_per_word / byte> sums;
  std::fill_n(scores, tokens, std::int64_t{0});
  for (index first = 0; first < weights.size; first += bits_per_word) {
    for (index n = first; n < first + bits_per_word; ++n) {
      auto& of_byte = sums[static_cast<std::size_t>((n - first) / byte)];
      const std::size_t subsets = std::size_t{1} << (n % byte);
      const std::int64_t weight = n < weights.size ? weights[n] : 0;
      if (subsets == 1) of_byte[0] = 0;
      for (std::size_t i = 0; i < subsets; ++i) of_byte[subsets + i] = of_byte[i] + weight;
    }
    for (index x = 0; x < tokens; ++x) {
      word set = bits[x * bits_stride + first / bits_per_word];
      for (const auto& of_byte : sums) {
        scores[x] += of_byte[set & 0xffu];
        set >>= byte;
      }
    }
  }
}

/// m(x) into scores[tokens] for each token row of `bits` (rows `bits_stride` words apart), all of them image
/// tokens of one group, from c_n of every neuron.
inline void rarity_scores(const word* bits, index tokens, index bits_stride,
                          vector_view<const std::int32_t> reference, std::int64_t* scores) {
  const index neurons = reference.size;
  std::vector<std::int32_t> firing(static_cast<std::size_t>(neurons));
  count_firing_tokens(bits, tokens, bits_stride, neurons, firing.data());
  std::vector<std::int64_t> weight_of(static_cast<std::size_t>(tokens + 1));  // by how many tokens fire
  for (index i = 0; i <= tokens; ++i) weight_of[static_cast<std::size_t>(i)] = rarity_weight(i, tokens);

  std::vector<std::int64_t> weights;
  weights.reserve(firing.size());
  for (index n = 0; n < neurons; ++n)
    weights.push_back(reference[n] *
                      weight_of[static_cast<std::size_t>(firing[static_cast<std::size_t>(n)])]);
  sum_weights(bits, tokens, bits_stride, {weights.data(), neurons}, scores);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

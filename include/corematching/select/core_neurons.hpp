// SPDX-License-Identifier: Apache-2.0
// Core neurons (CoreInfer, section 3; CoreMatching, section on core neurons): of each token the neurons with
// the largest positive activations, C_ρ(x); of the sentence the neurons that are among them for most tokens,
// C_ρ^β. Counting is additive over tokens, so chunks, threads and ranks may count apart and add their
// frequencies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/core_count.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/key_lanes.hpp"
#include "corematching/select/top_cut.hpp"

namespace corematching::select {

using corematching::core_count;

inline namespace COREMATCHING_CPU_ISA {
namespace detail {

inline void require_fraction(double value, const char* name) {
  require(value > 0.0 && value <= 1.0, name, " must lie in (0, 1], got ", value);
}

}  // namespace detail

/// k(x) of a token that activates `activated` neurons, rule per_token.
inline index core_size(double rho, std::int32_t activated) {
  detail::require_fraction(rho, "rho");
  if (activated == 0) return 0;
  return std::max(index{1}, static_cast<index>(std::floor(rho * activated)));
}

/// k of every token of a sentence, rule mean_count.
inline index mean_core_size(double rho, std::int64_t total_activated, index tokens) {
  detail::require_fraction(rho, "rho");
  if (tokens == 0) return 0;
  return static_cast<index>(
      std::floor(rho * (static_cast<double>(total_activated) / static_cast<double>(tokens))));
}

namespace detail {

/// Writes { n : a_n > 0 } of one token; returns false if an activation is NaN or infinite.
template <class T>
bool pack_positive_scalar(const T* activation, index neurons, word* bits) {
  std::int32_t largest = 0;
  for (index n = 0; n < neurons; ++n) {
    const word positive = activation_key(activation[n]) > 0 ? 1u : 0u;
    const index bit = n % bits_per_word;
    if (bit == 0) bits[n / bits_per_word] = 0;
    bits[n / bits_per_word] |= positive << bit;
    largest = std::max(largest, magnitude_key(activation[n]));
  }
  return largest < infinite_key<T>;
}

#if COREMATCHING_HAS_SIMD
template <class T>
bool pack_positive_vector(const T* activation, index neurons, word* bits) {
  const key_lanes zero = key_lanes::broadcast(0);
  const key_lanes magnitude = key_lanes::broadcast(sizeof(T) == 4 ? 0x7fffffff : 0x7fff);
  const index whole = neurons - neurons % bits_per_word;
  key_lanes largest = zero;
  for (index n = 0; n < whole; n += bits_per_word) {
    word packed = 0;
    for (index part = 0; part < bits_per_word; part += key_lanes::count) {
      const key_lanes keys = key_lanes::load(activation + n + part);
      largest = larger(largest, keys & magnitude);
      packed |= word{(keys > zero).signs()} << part;
    }
    bits[n / bits_per_word] = packed;
  }
  const key_lanes finite = key_lanes::broadcast(infinite_key<T>) > largest;
  return pack_positive_scalar(activation + whole, neurons - whole, bits + whole / bits_per_word) &&
         finite.signs() == 0xffu;
}
#endif

template <class T>
bool pack_positive(const T* activation, index neurons, word* bits) {
#if COREMATCHING_HAS_SIMD
  return pack_positive_vector(activation, neurons, bits);
#else
  return pack_positive_scalar(activation, neurons, bits);
#endif
}

/// frequency[n] += 1 where the key of neuron n lies above `key`.
template <class T>
void count_above_scalar(const T* activation, index neurons, std::int32_t key, std::int32_t* frequency) {
  for (index n = 0; n < neurons; ++n) frequency[n] += activation_key(activation[n]) > key ? 1 : 0;
}

#if COREMATCHING_HAS_SIMD
template <class T>
void count_above_vector(const T* activation, index neurons, std::int32_t key, std::int32_t* frequency) {
  const key_lanes threshold = key_lanes::broadcast(key);
  const index whole = neurons - neurons % key_lanes::count;
  for (index n = 0; n < whole; n += key_lanes::count) {
    const key_lanes minus_one = key_lanes::load(activation + n) > threshold;
    (key_lanes::load(frequency + n) - minus_one).store(frequency + n);
  }
  count_above_scalar(activation + whole, neurons - whole, key, frequency + whole);
}
#endif

template <class T>
void count_above(const T* activation, index neurons, std::int32_t key, std::int32_t* frequency) {
#if COREMATCHING_HAS_SIMD
  count_above_vector(activation, neurons, key, frequency);
#else
  count_above_scalar(activation, neurons, key, frequency);
#endif
}

template <class T>
[[noreturn]] void fail_not_finite(const T* activation, index token) {
  index n = 0;
  while (magnitude_key(activation[n]) < infinite_key<T>) ++n;
  fail("activation of token ", token, ", neuron ", n, " is ",
       magnitude_key(activation[n]) == infinite_key<T> ? "infinite" : "NaN");
}

}  // namespace detail

/// Γ(x) = { n : a_n(x) > 0 } of each row of `activation` [tokens, neurons] (rows `stride` elements apart):
/// its bits into row x of `bits` (rows `bits_stride` words apart), |Γ(x)| into counts[tokens]. Throws where
/// an activation is NaN or infinite, naming token (rows count from `first_token`) and neuron.
template <class T>
void activated_neurons(const T* activation, index tokens, index neurons, index stride, word* bits,
                       index bits_stride, std::int32_t* counts, index first_token = 0) {
  for (index x = 0; x < tokens; ++x) {
    const T* row = activation + x * stride;
    word* row_bits = bits + x * bits_stride;
    if (!detail::pack_positive(row, neurons, row_bits)) [[unlikely]]
      detail::fail_not_finite(row, first_token + x);
    counts[x] = static_cast<std::int32_t>(count(row_bits, words_for(neurons)));
  }
}

/// f(n) += 1 for the neurons of C_ρ(x), the k largest positive activations of one token (all of them where
/// there are fewer); ties at the cut go to the lower neuron. The activations must be finite.
template <class T>
void count_core_neurons(const T* activation, index neurons, index k, core_scratch& scratch,
                        std::int32_t* frequency) {
  if (k <= 0) return;
  const top_cut cut = top_positive(activation, neurons, k, scratch);
  const index ties_end = cut.ties_end;
  detail::count_above(activation, ties_end, cut.key - 1, frequency);
  detail::count_above(activation + ties_end, neurons - ties_end, cut.key, frequency + ties_end);
}

/// C_ρ^β: the floor(β·N) neurons with the largest f(n) > 0, fewer where fewer are positive; ties go to the
/// lower neuron. Ascending.
inline std::vector<std::int32_t> core_neurons(vector_view<const std::int32_t> frequency, double beta) {
  detail::require_fraction(beta, "beta");
  require(frequency.size <= std::numeric_limits<std::int32_t>::max(), "too many neurons: ", frequency.size);
  const auto wanted = static_cast<index>(std::floor(beta * static_cast<double>(frequency.size)));

  std::vector<std::int32_t> chosen;
  for (index n = 0; n < frequency.size; ++n) {
    if (frequency[n] > 0) chosen.push_back(static_cast<std::int32_t>(n));
  }
  if (std::ssize(chosen) <= wanted) return chosen;
  std::nth_element(chosen.begin(), chosen.begin() + wanted, chosen.end(),
                   [&](std::int32_t a, std::int32_t b) {
                     return frequency[a] != frequency[b] ? frequency[a] > frequency[b] : a < b;
                   });
  chosen.resize(static_cast<std::size_t>(wanted));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

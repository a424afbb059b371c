// SPDX-License-Identifier: Apache-2.0
// The selectors of CoreMatching (arXiv 2505.19235) for engines that bring their own tensors: hand over a
// pointer, a shape and a stride, get indices. Needs the standard library only.
//
// An activation matrix is what enters the down projection of one feed-forward block, act(x·W_gate) *
// (x·W_up), row-major [tokens, neurons], rows `stride` elements apart, of type float, f16 or bf16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/core_count.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/contrast.hpp"
#include "corematching/select/core_neurons.hpp"
#include "corematching/select/core_tokens.hpp"
#include "corematching/select/farthest_first.hpp"
#include "corematching/select/max_distance.hpp"
#include "corematching/select/random_scores.hpp"
#include "corematching/select/rarity.hpp"
#include "corematching/select/score_profile.hpp"

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {

/// C_ρ^β of a sentence from the activations of all its tokens: the neurons that decoding needs, ascending.
/// Throws where rho or beta is outside (0, 1] or an activation is NaN or infinite.
template <class T>
std::vector<std::int32_t> core_neurons(const T* activation, index tokens, index neurons, index stride,
                                       double rho, double beta, core_count rule = core_count::per_token) {
  detail::require_fraction(rho, "rho");
  detail::require_fraction(beta, "beta");
  std::vector<word> bits(static_cast<std::size_t>(words_for(neurons)));
  std::vector<std::int32_t> frequency(static_cast<std::size_t>(neurons));
  core_scratch scratch;

  index shared_size = 0;
  if (rule == core_count::mean_count) {
    std::int64_t total = 0;
    for (index x = 0; x < tokens; ++x) {
      std::int32_t activated = 0;
      activated_neurons(activation + x * stride, 1, neurons, stride, bits.data(), 0, &activated, x);
      total += activated;
    }
    shared_size = mean_core_size(rho, total, tokens);
  }
  for (index x = 0; x < tokens; ++x) {
    const T* row = activation + x * stride;
    std::int32_t activated = 0;
    activated_neurons(row, 1, neurons, stride, bits.data(), 0, &activated, x);
    const index k = rule == core_count::per_token ? core_size(rho, activated) : shared_size;
    count_core_neurons(row, neurons, k, scratch, frequency.data());
  }
  return core_neurons(vector_view<const std::int32_t>{frequency.data(), neurons}, beta);
}

/// Which rows of `activation` [tokens, neurons], all of them image tokens, stay: those that share most
/// activated neurons with `core`. Ascending row numbers. Throws where an option is out of range, an
/// activation is NaN or infinite, or a core neuron is not below `neurons`.
template <class T>
std::vector<std::int32_t> core_tokens(const T* activation, index tokens, index neurons, index stride,
                                      index_view<> core, const keep_options& options = {}) {
  const index words = words_for(neurons);
  std::vector<word> core_bits(static_cast<std::size_t>(words));
  std::vector<word> bits(static_cast<std::size_t>(words));
  std::vector<std::int32_t> scores(static_cast<std::size_t>(tokens));
  for (const std::int32_t n : core) {
    require(n >= 0 && n < neurons, "core neuron ", n, " is not one of ", neurons, " neurons");
    set_bit(core_bits.data(), n);
  }
  for (index x = 0; x < tokens; ++x) {
    std::int32_t activated = 0;
    activated_neurons(activation + x * stride, 1, neurons, stride, bits.data(), 0, &activated, x);
    overlap(bits.data(), 1, words, core_bits.data(), words, &scores[static_cast<std::size_t>(x)]);
  }
  return core_tokens(vector_view<const std::int32_t>{scores.data(), tokens}, options);
}

namespace detail {

/// Γ of every row, one behind the other.
template <class T>
std::vector<word> activated_sets(const T* activation, index tokens, index neurons, index stride) {
  const index words = words_for(neurons);
  std::vector<word> sets(static_cast<std::size_t>(tokens * words));
  std::vector<std::int32_t> sizes(static_cast<std::size_t>(tokens));
  activated_neurons(activation, tokens, neurons, stride, sets.data(), words, sizes.data());
  return sets;
}

}  // namespace detail

/// c_n of the tokens of `activation` [tokens, neurons], such as those of a question: how many of them
/// activate each neuron. Throws where an activation is NaN or infinite.
template <class T>
std::vector<std::int32_t> firing_tokens(const T* activation, index tokens, index neurons, index stride) {
  const std::vector<word> sets = detail::activated_sets(activation, tokens, neurons, stride);
  std::vector<std::int32_t> counts(static_cast<std::size_t>(neurons));
  count_firing_tokens(sets.data(), tokens, words_for(neurons), neurons, counts.data());
  return counts;
}

/// Which rows of `activation` [tokens, neurons], all of them image tokens of one picture, stay: those that
/// activate most of the neurons of `reference` (c_n of every neuron, at least 0), the rarer the better.
/// Ascending row numbers. Throws as core_tokens() does.
template <class T>
std::vector<std::int32_t> rare_tokens(const T* activation, index tokens, index stride,
                                      vector_view<const std::int32_t> reference,
                                      const keep_options& options = {}) {
  const std::vector<word> sets = detail::activated_sets(activation, tokens, reference.size, stride);
  std::vector<std::int64_t> scores(static_cast<std::size_t>(tokens));
  rarity_scores(sets.data(), tokens, words_for(reference.size), reference, scores.data());
  return core_tokens(vector_view<const std::int64_t>{scores.data(), tokens}, options);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

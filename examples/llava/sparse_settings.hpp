// SPDX-License-Identifier: Apache-2.0
// From the options of a run to the library's settings of what is left out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/model/llava/thinning.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// Whether `o` leaves anything out in the decoder.
inline bool is_sparse(const options& o) {
  return o.sparsity.sparse_neurons || o.sparsity.sparse_tokens;
}

/// Whether `o` drops image tokens, before the decoder or in it.
inline bool drops_tokens(const options& o) {
  return o.sparsity.sparse_tokens || o.thin;
}

/// Which image tokens `o` drops before the decoder; nothing: none.
inline std::optional<thinning_config> thinning_of(const options& o) {
  std::optional<thinning_config> how = o.thin;
  if (how) how->seed = o.sparsity.seed;
  return how;
}

/// Whether neurons are left out as in the paper: all but the sentence's core neurons.
inline bool answers_with_core_neurons(const options& o) {
  return o.sparsity.sparse_neurons && o.neurons.policy == neuron_policy::sentence &&
         o.neurons.statistic == neuron_statistic::frequency;
}

/// Whether core neurons are found at all: tokens may be matched with them, whichever neurons answer.
inline bool finds_core_neurons(const options& o) {
  const core_matching_config& s = o.sparsity;
  return answers_with_core_neurons(o) || s.is_matched_with(reference_set::sentence) ||
         (s.sparse_tokens && s.criterion == token_criterion::contrast);
}

/// The paper's part of `o`: which tokens stay, and which neurons answer where core neurons do.
inline core_matching_config matching_of(const options& o) {
  core_matching_config config = o.sparsity;
  config.sparse_neurons = answers_with_core_neurons(o);
  if (!finds_core_neurons(o)) {  // these are then others' settings
    config.beta = 1;             // any model has so many
    config.count_over = core_matching_config().count_over;
  }
  return config;
}

/// Whether what `o` leaves out depends on how the model reads the text in front of a prompt's pictures: then
/// it cannot be taken over from another prompt. What is counted over all tokens or over text depends on it,
/// and what is matched with a token that a position names may.
inline bool looks_at_text_before_pictures(const options& o) {
  const core_matching_config& s = o.sparsity;
  const bool counts_it = s.counted_kind() != token_kind::image;
  if (s.sparse_neurons && counts_it &&
      (o.neurons.policy == neuron_policy::sentence || o.neurons.policy == neuron_policy::gate))
    return true;
  if (!s.sparse_tokens || s.criterion == token_criterion::random) return false;
  if (s.positions == position_policy::contiguous || !s.matches_neurons()) return true;
  return s.matched_with() != reference_set::question &&
         (s.matched_with() != reference_set::sentence || counts_it);
}

/// What share of its neurons each layer computes, by whatever policy.
inline neuron_shares shares_of(const options& o) {
  const core_matching_config& s = o.sparsity;
  return {s.beta, s.neuron_layers_begin, s.neuron_layers_end, o.neurons.beta_of_layer};
}

/// The beta of each of `layers` layers; empty where no neurons are left out.
inline std::vector<double> betas_of(const options& o, index layers) {
  std::vector<double> betas;
  for (index layer = 0; layer < layers && o.sparsity.sparse_neurons; ++layer)
    betas.push_back(shares_of(o).of(layer, layers));
  return betas;
}

/// The policy by which neurons are left out, as --neurons names it; empty where none are.
inline std::string policy_name(const options& o) {
  if (!o.sparsity.sparse_neurons) return "";
  switch (o.neurons.policy) {
    case neuron_policy::sentence: return "sentence";
    case neuron_policy::gate: return "gate";
    case neuron_policy::plain_gate: return "gate:plain";
    case neuron_policy::predicted: return "predicted";
  }
  return "";
}

/// The statistic by which a sentence's neurons are chosen, as --statistic names it; empty for other policies.
inline std::string statistic_name(const options& o) {
  if (policy_name(o) != "sentence") return "";
  return o.neurons.statistic == neuron_statistic::frequency ? "frequency" : "magnitude";
}

/// Rows of a prompt of `tokens` whose feed-forward activations exist at a time: all at once, unless that
/// takes more memory than it is worth; the rule mean_count needs them all.
inline index ffn_rows(const options& o, index tokens) {
  constexpr index worth = 1024;
  const bool whole = is_sparse(o) && o.sparsity.count == core_count::mean_count;
  return whole || tokens < worth ? tokens : worth;
}

}  // namespace corematching::driver

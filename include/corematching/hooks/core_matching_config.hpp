// SPDX-License-Identifier: Apache-2.0
// Every choice that CoreMatching leaves to its user, as one plain struct. Defaults are the paper's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "corematching/core/core_count.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/nn/token_kind.hpp"
#include "corematching/select/core_tokens.hpp"

namespace corematching {

/// Whose activations are counted in f(n).
enum class counted_tokens : std::uint8_t { all, text, image };

/// What the neurons of an image token are matched with: the sentence's core neurons (the paper); Γ of one
/// text token (the authors' released code); Γ of every text token behind the last picture; or the core
/// neurons counted over text alone.
enum class reference_set : std::uint8_t { sentence, anchor, question, text };

/// By which score image tokens are kept: shared neurons (CoreMatching); these weighted by how few image
/// tokens have them (select/rarity.hpp), or without those that are core neurons of the image
/// (select/contrast.hpp); the attention that the last prompt token pays (FastV); the projection of the
/// weighted value on the attention output; or chance.
enum class token_criterion : std::uint8_t { overlap, rarity, contrast, attention, projection, random };

/// Among which image tokens the rule keeps some: those of each picture for itself, or all of a prompt's.
enum class kept_among : std::uint8_t { each, all };

/// What happens to a dropped token: it goes everywhere; its cache entries stay in the layers up to the
/// matching one (FastV); or nothing but the matching layer's keys and values is set to zero (the released
/// code).
enum class pruning_mode : std::uint8_t { everywhere, later_layers, zero_in_place };

/// Positions of kept tokens after a matching layer: their own, or 0, 1, ...
enum class position_policy : std::uint8_t { original, contiguous };

/// As options of programs name them.
constexpr std::string_view name_of(reference_set set) {
  constexpr std::string_view names[] = {"sentence", "anchor", "question", "text"};
  return names[static_cast<std::size_t>(set)];
}
constexpr std::string_view name_of(token_criterion criterion) {
  constexpr std::string_view names[] = {"overlap", "rarity", "contrast", "attention", "projection", "random"};
  return names[static_cast<std::size_t>(criterion)];
}

/// The paper's setting, which is not safe for every model: on two small pretrained text models its neurons
/// multiply perplexity by 61 and 111, and on our demo model its tokens leave 53% of the answers right
/// (docs/accuracy.md; there is what holds, too).
struct core_matching_config {
  bool sparse_neurons = true;  // decode with core neurons only
  bool sparse_tokens = true;   // keep core tokens only

  double rho = 0.2;   // share of a token's activated neurons that are its core neurons, in (0, 1]
  double beta = 0.4;  // share of a layer's neurons that are the sentence's core neurons, in (0, 1]
  core_count count = core_count::per_token;
  counted_tokens count_over = counted_tokens::all;
  index neuron_layers_begin = 0;                // layers that decode sparsely: begin <= layer < end
  std::optional<index> neuron_layers_end = {};  // nothing: all layers

  std::vector<index> match_layers = {};  // empty: one, at round(10 L / 32)
  token_criterion criterion = token_criterion::overlap;
  std::optional<reference_set> reference = {};  // nothing: see matched_with()
  index anchor = -5;  // position of the anchor token, counted from the end of the prompt if negative
  select::keep_options keep = {};
  kept_among among = kept_among::each;
  pruning_mode pruning = pruning_mode::everywhere;
  position_policy positions = position_policy::original;
  std::uint64_t seed = 0;  // of the criterion `random`

  /// Throws `error` naming the first value that a model of `layers` layers with `neurons` neurons refuses.
  void validate(index layers, index neurons) const {
    require(rho > 0 && rho <= 1, "rho must lie in (0, 1], not ", rho);
    require(beta > 0 && beta <= 1, "beta must lie in (0, 1], not ", beta);
    require(std::floor(beta * static_cast<double>(neurons)) >= 1, "beta ", beta, " selects none of ", neurons,
            " neurons");
    require(
        neuron_layers_begin >= 0 && neuron_layers_begin < neuron_end(layers) && neuron_end(layers) <= layers,
        "neuron layers ", neuron_layers_begin, "..", neuron_end(layers), " do not lie in 0..", layers);
    for (const index layer : match_layers)
      require(layer >= 0 && layer < layers, "matching layer ", layer, " does not lie in 0..", layers - 1);
    require(std::ranges::adjacent_find(match_layers, std::greater_equal{}) == match_layers.end(),
            "matching layers must ascend");
    require(positions == position_policy::original || pruning == pruning_mode::everywhere,
            "contiguous positions need pruning everywhere: other modes leave dropped tokens in some caches");
    if (reference && matches_neurons())
      require(can_match(*reference), "the criterion ", name_of(criterion),
              " is not matched with the reference ", name_of(*reference));
    keep.validate();
  }

  /// Whether the criterion looks at neurons, and so has a reference.
  bool matches_neurons() const {
    return criterion == token_criterion::overlap || criterion == token_criterion::rarity ||
           criterion == token_criterion::contrast;
  }
  /// What such a criterion matches with: what was chosen, or else the sentence for overlap, the question for
  /// rarity, and the anchor for contrast.
  reference_set matched_with() const {
    if (reference) return *reference;
    if (criterion == token_criterion::rarity) return reference_set::question;
    return criterion == token_criterion::contrast ? reference_set::anchor : reference_set::sentence;
  }
  /// Whether tokens are dropped by what they share with this reference.
  bool is_matched_with(reference_set with) const {
    return sparse_tokens && matches_neurons() && matched_with() == with;
  }
  /// The kind of the tokens that are counted in f(n); nothing: all are.
  std::optional<token_kind> counted_kind() const {
    if (count_over == counted_tokens::all) return std::nullopt;
    return count_over == counted_tokens::text ? token_kind::text : token_kind::image;
  }

  index neuron_end(index layers) const { return neuron_layers_end.value_or(layers); }

  bool matches_at(index layer, index layers) const {
    if (!sparse_tokens) return false;
    if (match_layers.empty()) return layer == default_match_layer(layers);
    return std::ranges::binary_search(match_layers, layer);
  }

  bool decodes_sparsely(index layer, index layers) const {
    return sparse_neurons && beta < 1 && layer >= neuron_layers_begin && layer < neuron_end(layers);
  }

  /// Layer 10 of 32, as in the paper's figures, in proportion.
  static index default_match_layer(index layers) { return (20 * layers + 32) / 64; }

 private:
  // Whether that is a reference of the criterion.
  bool can_match(reference_set with) const {
    switch (with) {
      case reference_set::sentence: return criterion != token_criterion::contrast;
      case reference_set::anchor: return true;
      case reference_set::question: return criterion == token_criterion::rarity;
      case reference_set::text: return criterion == token_criterion::contrast;
    }
    return false;
  }
};

}  // namespace corematching

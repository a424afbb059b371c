// SPDX-License-Identifier: Apache-2.0
// How CoreMatching scores image tokens by their neurons, as members of core_matching: what they share with a
// reference (the paper), what is left of that without the image's core neurons, or what they share weighted
// by how rare it is. All scores are integers, and the same on every backend and for every chunking of a
// prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/naming_layer.hpp"
#include "corematching/hooks/released_code.hpp"
#include "corematching/nn/transfer.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/contrast.hpp"
#include "corematching/select/neuron_set.hpp"
#include "corematching/select/rarity.hpp"

namespace corematching {

namespace detail {

/// The sets of `rows` of `sets` (`words` words each), one behind the other.
inline std::vector<std::uint64_t> packed_sets(std::span<const std::uint64_t> sets, index words,
                                              const std::vector<std::int32_t>& rows) {
  std::vector<std::uint64_t> packed;
  packed.reserve(rows.size() * static_cast<std::size_t>(words));
  for (const std::int32_t row : rows) {
    const auto set = sets.subspan(static_cast<std::size_t>(row * words), static_cast<std::size_t>(words));
    packed.insert(packed.end(), set.begin(), set.end());
  }
  return packed;
}

}  // namespace detail

// Γ of every row that is alive.
template <selecting_backend B>
auto core_matching<B>::activated_sets(const layer_context<B>& at) const -> set_rows {
  const index words = select::words_for(shape_.intermediate_size);
  return {bits_.data(), at.positions.size, words, words};
}

// m(x) = |Γ(x) ∩ reference| of every row.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::overlap_scores(const layer_context<B>& at, set_view reference) {
  const index rows = at.positions.size;
  auto placed = at.be.template allocate<std::int32_t>(rows);
  at.be.overlap(placed.view(), activated_sets(at), reference);
  return host_values(at.be, placed.view());
}

// With the sentence's core neurons, or with Γ of the anchor.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::overlap_scores(const layer_context<B>& at) {
  return detail::naming_layer(at.layer, [&] {
    return overlap_scores(at,
                          config_.matched_with() == reference_set::sentence
                              ? set_view(sets_[static_cast<std::size_t>(at.layer)].bits())
                              : activated_sets(at).row(detail::anchor_row(config_, tokens_, at.positions)));
  });
}

// m(x) = |Γ(x) ∩ (R \ C)| of every row: R is Γ of the anchor or the core neurons counted over text, C those
// counted over the image. None where text has no core neurons.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::contrast_scores(const layer_context<B>& at) {
  return detail::naming_layer(at.layer, [&]() -> std::vector<std::int32_t> {
    const auto counted_over = [&](token_kind kind) {
      const auto set = at.be.core_neurons(contrast_.at(at.layer).at(kind).view(), config_.beta);
      return host_values(at.be, set.indices());
    };
    std::vector<std::int32_t> reference;
    if (config_.matched_with() == reference_set::text) {
      reference = counted_over(token_kind::text);
      if (reference.empty()) return {};
    } else {
      const auto anchor =
          host_values(at.be, activated_sets(at).row(detail::anchor_row(config_, tokens_, at.positions)));
      reference = select::bits_to_indices(anchor.data(), std::ssize(anchor));
    }
    const std::vector<std::int32_t> image = counted_over(token_kind::image);
    const select::neuron_set rest(
        select::contrast_set({reference.data(), std::ssize(reference)}, {image.data(), std::ssize(image)}),
        shape_.intermediate_size);
    auto placed = at.be.template allocate<std::uint64_t>(rest.bits().size);
    at.be.upload(placed.view(), rest.bits());
    return overlap_scores(at, placed.view());
  });
}

// c_n: how many tokens of the reference have each neuron.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::reference_counts(const layer_context<B>& at,
                                                             std::span<const std::uint64_t> sets) {
  const index neurons = shape_.intermediate_size, words = select::words_for(neurons);
  std::vector<std::int32_t> counts(static_cast<std::size_t>(neurons));
  if (config_.matched_with() == reference_set::sentence) {
    for (const std::int32_t n : host_values(at.be, core_neurons(at.layer)))
      counts[static_cast<std::size_t>(n)] = 1;
    return counts;
  }
  prompt_tokens::rows rows = tokens_.rows_behind_pictures(at.positions);
  if (config_.matched_with() == reference_set::anchor)
    rows = {static_cast<std::int32_t>(detail::anchor_row(config_, tokens_, at.positions))};
  const std::vector<std::uint64_t> packed = detail::packed_sets(sets, words, rows);
  select::count_firing_tokens(packed.data(), std::ssize(rows), words, neurons, counts.data());
  return counts;
}

// m(x) = Σ over n in Γ(x) of c_n w_n of the rows of pictures, where w_n is of a picture; 0 of other rows.
template <selecting_backend B>
std::vector<std::int64_t> core_matching<B>::rarity_scores(const layer_context<B>& at,
                                                          const std::vector<prompt_tokens::rows>& pictures) {
  const index words = select::words_for(shape_.intermediate_size);
  const std::vector<std::uint64_t> sets = detail::naming_layer(at.layer, [&] {
    return host_values(at.be, set_view{bits_.data(), at.positions.size * words});
  });
  const std::vector<std::int32_t> reference = reference_counts(at, sets);
  std::vector<std::int64_t> scores(static_cast<std::size_t>(at.positions.size));
  for (const prompt_tokens::rows& rows : pictures) {
    const std::vector<std::uint64_t> packed = detail::packed_sets(sets, words, rows);
    std::vector<std::int64_t> of_picture(rows.size());
    select::rarity_scores(packed.data(), std::ssize(rows), words, {reference.data(), std::ssize(reference)},
                          of_picture.data());
    for (std::size_t i = 0; i < rows.size(); ++i) scores[static_cast<std::size_t>(rows[i])] = of_picture[i];
  }
  return scores;
}

}  // namespace corematching

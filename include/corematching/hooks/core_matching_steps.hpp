// SPDX-License-Identifier: Apache-2.0
// The steps of CoreMatching while a prompt is prefilled, as members of core_matching: activated neurons, core
// neurons of each token, core neurons of the sentence, core tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/kept_tokens.hpp"
#include "corematching/hooks/naming_layer.hpp"
#include "corematching/hooks/released_code.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/random_scores.hpp"

namespace corematching {

template <selecting_backend B>
void core_matching<B>::begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds,
                                    std::span<const index> picture_sizes) {
  prompt_tokens tokens(first_position, kinds, picture_sizes);
  require(tokens.size() > 0, "the prompt is empty");
  require(!config_.sparse_tokens || kinds.back() == token_kind::text,
          "the prompt ends with an image token, which may be dropped; the answer must follow text");
  // Behind an earlier prompt its frequencies are there.
  const std::optional<token_kind> counted = config_.counted_kind();
  require(!counted || tokens_.size() > 0 || tokens.has(*counted), "core neurons are counted over ",
          counted == token_kind::text ? "text" : "image", " tokens, but the prompt has none");
  detail::check_anchor(config_, tokens);
  tokens_ = std::move(tokens);
  matches_.clear();
}

// Γ(x) of the rows handed over, and f(n) += 1 for the core neurons of each that counts.
template <selecting_backend B>
void core_matching<B>::observe(const layer_context<B>& at, activation_view activation) {
  if (!needs_activated_neurons(at.layer)) return;
  const stopwatch watch(*this);
  const index words = select::words_for(activation.cols), alive = at.positions.size;
  if (bits_.size() < alive * words) bits_ = at.be.template allocate<std::uint64_t>(alive * words);
  if (activated_.size() < alive) activated_ = at.be.template allocate<std::int32_t>(alive);

  const matrix_view<std::uint64_t, space> bits{bits_.data() + at.first_row * words, activation.rows, words,
                                               words};
  const vector_view<std::int32_t, space> activated{activated_.data() + at.first_row, activation.rows};
  detail::naming_layer(at.layer, [&] { at.be.activated_neurons(bits, activated, activation); });
  if (needs_core_neurons(at.layer))
    count_core_neurons(at, activation, activated, config_.counted_kind(),
                       frequency_[static_cast<std::size_t>(at.layer)]);
  if (contrasts_at(at.layer))
    for (auto& [kind, frequency] : contrast_.at(at.layer))
      count_core_neurons(at, activation, activated, kind, frequency);
}

template <selecting_backend B>
void core_matching<B>::count_core_neurons(const layer_context<B>& at, activation_view activation,
                                          vector_view<std::int32_t, space> activated,
                                          std::optional<token_kind> counted, frequencies& frequency) {
  detail::require_whole_prompt(config_.count, activation.rows, at.positions.size);
  const auto sums = frequency.view();
  if (!counted) return at.be.count_core_neurons(sums, activation, activated, config_.rho, config_.count);
  const std::vector<std::int32_t> rows =
      tokens_.rows_of(*counted, {at.positions.data + at.first_row, activation.rows});
  const auto placed = device_indices(at.be, {rows.data(), std::ssize(rows)});
  at.be.count_core_neurons(sums, activation, activated, config_.rho, config_.count,
                           index_view<space>(placed.view()));
}

// Core neurons of the layer; at a matching layer, then, which tokens go on.
template <selecting_backend B>
token_selection core_matching<B>::keep(const layer_context<B>& at) {
  const stopwatch watch(*this);
  if (needs_core_neurons(at.layer)) choose_core_neurons(at.layer, at.be);
  if (at.layer + 1 == layers_) find_silent_layers();
  if (!matches_at(at.layer)) return {};
  if (matches_core_neurons_at(at.layer) && core_neurons(at.layer).empty()) return {};
  std::vector<prompt_tokens::rows> pictures = tokens_.rows_of_pictures(at.positions);
  if (pictures.empty()) return {};
  detail::kept_images best = best_rows(at, std::move(pictures));
  if (best.rows.empty()) return {};  // there was nothing to match with
  keep_rows(at, std::move(best));
  return prune(at);
}

// C_ρ^β from the frequencies.
template <selecting_backend B>
void core_matching<B>::choose_core_neurons(index layer, B& be) {
  auto& set = sets_[static_cast<std::size_t>(layer)];
  set = detail::naming_layer(layer, [&] {
    return be.core_neurons(frequency_[static_cast<std::size_t>(layer)].view(), config_.beta);
  });
}

// A backend that queues its work is waited for once, behind the last layer.
template <selecting_backend B>
void core_matching<B>::find_silent_layers() {
  silent_layers_.clear();
  for (index layer = 0; layer < layers_; ++layer)
    if (needs_core_neurons(layer) && core_neurons(layer).empty()) silent_layers_.push_back(layer);
}

template <selecting_backend B>
auto core_matching<B>::core_neurons(index layer) const -> index_view<space> {
  return detail::naming_layer(layer, [&] { return sets_[static_cast<std::size_t>(layer)].indices(); });
}

// Those of the image tokens that the rule keeps.
template <selecting_backend B>
detail::kept_images core_matching<B>::best_rows(const layer_context<B>& at,
                                                std::vector<prompt_tokens::rows> pictures) {
  const auto best_by = [&](const auto& scores) -> detail::kept_images {  // of all rows
    if (scores.empty()) return {};
    return detail::keep_best(scores, std::move(pictures), config_.keep, config_.among);
  };
  switch (config_.criterion) {
    case token_criterion::overlap: return best_by(overlap_scores(at));
    case token_criterion::rarity: return best_by(rarity_scores(at, pictures));
    case token_criterion::contrast: return best_by(contrast_scores(at));
    case token_criterion::random: return best_by(select::random_scores(config_.seed, at.layer, at.positions));
    case token_criterion::attention:
    case token_criterion::projection: return best_by(attention_scores_);
  }
  return {};
}

// kept_rows_: all text, and the `best` of the image tokens.
template <selecting_backend B>
void core_matching<B>::keep_rows(const layer_context<B>& at, detail::kept_images best) {
  token_match match{.layer = at.layer, .kept_positions = {}, .kept_image_positions = {}};
  match.groups = std::move(best.groups);
  for (const auto& [row, score] : best.scores) match.image_scores.push_back({at.positions[row], score});
  for (const token_group& group : match.groups) match.image_tokens += group.image_tokens;
  kept_rows_.clear();
  for (index row = 0; row < at.positions.size; ++row) {
    const bool image = tokens_.kind_of(at.positions[row]) == token_kind::image;
    if (image && !std::ranges::binary_search(best.rows, row)) continue;
    kept_rows_.push_back(static_cast<std::int32_t>(row));
    match.kept_positions.push_back(at.positions[row]);
    if (image) match.kept_image_positions.push_back(at.positions[row]);
  }
  matches_.push_back(std::move(match));
}

// What the layer is asked to drop.
template <selecting_backend B>
token_selection core_matching<B>::prune(const layer_context<B>& at) {
  if (std::ssize(kept_rows_) == at.positions.size) return {};
  if (config_.pruning == pruning_mode::zero_in_place) {
    detail::zero_dropped(at, kept_rows_);
    return {};
  }
  return {index_view<>{kept_rows_.data(), std::ssize(kept_rows_)},
          config_.pruning == pruning_mode::everywhere ? cache_scope::every_layer : cache_scope::later_layers,
          config_.positions == position_policy::contiguous};
}

}  // namespace corematching

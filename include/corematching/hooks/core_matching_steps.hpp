// SPDX-License-Identifier: Apache-2.0
// The steps of CoreMatching while a prompt is prefilled, as members of core_matching: activated neurons, core
// neurons of each token, core neurons of the sentence, core tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/released_code.hpp"
#include "corematching/hooks/token_criteria.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/core_tokens.hpp"

namespace corematching {

namespace detail {

/// What `body` returns; its errors say which layer they are about. A backend that queues its work may find
/// out in a later step that activations are not finite.
template <class Body>
decltype(auto) naming_layer(index layer, Body&& body) {
  try {
    return body();
  } catch (const error& problem) {
    fail("layer ", layer, ": ", problem.what());
  }
}

}  // namespace detail

template <selecting_backend B>
void core_matching<B>::begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds) {
  prompt_tokens tokens(first_position, kinds);
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
  if (needs_core_neurons(at.layer)) count_core_neurons(at, activation, activated);
}

template <selecting_backend B>
void core_matching<B>::count_core_neurons(const layer_context<B>& at, activation_view activation,
                                          vector_view<std::int32_t, space> activated) {
  detail::require_whole_prompt(config_.count, activation.rows, at.positions.size);
  const auto frequency = frequency_[static_cast<std::size_t>(at.layer)].view();
  const std::optional<token_kind> counted = config_.counted_kind();
  if (!counted) return at.be.count_core_neurons(frequency, activation, activated, config_.rho, config_.count);
  const std::vector<std::int32_t> rows =
      tokens_.rows_of(*counted, {at.positions.data + at.first_row, activation.rows});
  const auto placed = device_indices(at.be, {rows.data(), std::ssize(rows)});
  at.be.count_core_neurons(frequency, activation, activated, config_.rho, config_.count,
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
  const std::vector<std::int32_t> image_rows = tokens_.rows_of(token_kind::image, at.positions);
  if (image_rows.empty()) return {};
  keep_rows(at, image_rows, best_rows(at, image_rows));
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

// Those of the image tokens that the rule keeps, ascending.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::best_rows(const layer_context<B>& at,
                                                      const std::vector<std::int32_t>& image_rows) {
  const auto best_by = [&](const auto& scores) {  // of all rows
    auto of_images = scores;
    of_images.clear();
    for (const std::int32_t row : image_rows) of_images.push_back(scores[static_cast<std::size_t>(row)]);
    using score = typename std::decay_t<decltype(scores)>::value_type;
    std::vector<std::int32_t> best =
        select::core_tokens(vector_view<const score>{of_images.data(), std::ssize(of_images)}, config_.keep);
    for (std::int32_t& place : best) place = image_rows[static_cast<std::size_t>(place)];
    return best;
  };
  if (config_.criterion == token_criterion::overlap) return best_by(overlap_scores(at));
  if (config_.criterion == token_criterion::random)
    return best_by(detail::random_scores(config_.seed, at.layer, at.positions));
  return best_by(attention_scores_);
}

// m(x) = |Γ(x) ∩ C_ρ^β| of every row.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::overlap_scores(const layer_context<B>& at) {
  const index rows = at.positions.size, words = select::words_for(shape_.intermediate_size);
  const matrix_view<const std::uint64_t, space> bits{bits_.data(), rows, words, words};
  const auto reference =
      config_.matches_sentence()
          ? vector_view<const std::uint64_t, space>(sets_[static_cast<std::size_t>(at.layer)].bits())
          : bits.row(detail::anchor_row(config_, tokens_, at.positions));
  auto placed = at.be.template allocate<std::int32_t>(rows);
  at.be.overlap(placed.view(), bits, reference);
  std::vector<std::int32_t> scores(static_cast<std::size_t>(rows));
  detail::naming_layer(at.layer, [&] {
    at.be.download(vector_view<std::int32_t>{scores.data(), rows}, placed.view());
  });
  return scores;
}

// kept_rows_: all text, and the `best` of the image tokens.
template <selecting_backend B>
void core_matching<B>::keep_rows(const layer_context<B>& at, const std::vector<std::int32_t>& image_rows,
                                 const std::vector<std::int32_t>& best) {
  token_match match{at.layer, {}, {}, std::ssize(image_rows)};
  kept_rows_.clear();
  for (index row = 0; row < at.positions.size; ++row) {
    const bool image = tokens_.kind_of(at.positions[row]) == token_kind::image;
    if (image && !std::ranges::binary_search(best, row)) continue;
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

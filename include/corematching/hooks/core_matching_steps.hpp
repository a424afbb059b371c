// SPDX-License-Identifier: Apache-2.0
// The steps of CoreMatching while a prompt is prefilled, as members of core_matching: activated neurons, core
// neurons of each token, core neurons of the sentence, core tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching.hpp"

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
  const auto tokens = std::ssize(kinds);
  require(tokens > 0, "the prompt is empty");
  require(!config_.sparse_tokens || kinds.back() == token_kind::text,
          "the prompt ends with an image token, which may be dropped; the answer must follow text");
  const auto has = [&](token_kind kind) { return std::ranges::count(kinds, kind) > 0; };
  const bool text = config_.count_over == counted_tokens::text;
  const bool counts = any_counted_ || config_.count_over == counted_tokens::all ||
                      has(text ? token_kind::text : token_kind::image);
  require(counts, "core neurons are counted over ", text ? "text" : "image",
          " tokens, but the prompt has none");
  check_anchor(kinds);
  any_counted_ = counts;
  first_position_ = first_position;
  kinds_.assign(kinds.begin(), kinds.end());
  matches_.clear();
}

// The anchor must be a text token of the prompt, where there are image tokens to match with it.
template <selecting_backend B>
void core_matching<B>::check_anchor(std::span<const token_kind> kinds) const {
  if (!config_.sparse_tokens || config_.criterion != token_criterion::overlap ||
      config_.reference != reference_set::anchor || std::ranges::count(kinds, token_kind::image) == 0)
    return;
  const auto tokens = std::ssize(kinds);
  const index anchor = config_.anchor < 0 ? tokens + config_.anchor : config_.anchor;
  require(anchor >= 0 && anchor < tokens, "anchor token ", config_.anchor, " lies outside the prompt of ",
          tokens, " tokens");
  require(kinds[static_cast<std::size_t>(anchor)] == token_kind::text, "anchor token ", config_.anchor,
          " is an image token; it must be text");
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
  require(config_.count != core_count::mean_count || activation.rows == at.positions.size,
          "core_count::mean_count needs the whole prompt in one call: scratch.ffn_rows() must be at least ",
          at.positions.size);
  const auto frequency = frequency_[static_cast<std::size_t>(at.layer)].view();
  if (config_.count_over == counted_tokens::all)
    return at.be.count_core_neurons(frequency, activation, activated, config_.rho, config_.count);
  const token_kind counted =
      config_.count_over == counted_tokens::text ? token_kind::text : token_kind::image;
  const std::vector<std::int32_t> rows = rows_of(counted, at, activation.rows);
  const auto placed = device_indices(at.be, {rows.data(), std::ssize(rows)});
  at.be.count_core_neurons(frequency, activation, activated, config_.rho, config_.count,
                           index_view<space>(placed.view()));
}

// Of the `rows` rows from at.first_row on, counted from it, those of one kind.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::rows_of(token_kind kind, const layer_context<B>& at,
                                                    index rows) const {
  std::vector<std::int32_t> result;
  for (index i = 0; i < rows; ++i)
    if (kind_of(at.positions[at.first_row + i]) == kind) result.push_back(static_cast<std::int32_t>(i));
  return result;
}

template <selecting_backend B>
void core_matching<B>::observe(const layer_context<B>& at, const attention_inputs<B>& in) {
  if (!matches_at(at.layer)) return;
  const stopwatch watch(*this);
  attention_scores_ = config_.criterion == token_criterion::attention
                          ? detail::attention_scores(at.be, in, at.positions.size)
                          : detail::projection_scores(at.be, in, at.positions.size);
}

// Core neurons of the layer; at a matching layer, then, which tokens go on.
template <selecting_backend B>
token_selection core_matching<B>::keep(const layer_context<B>& at) {
  const stopwatch watch(*this);
  if (needs_core_neurons(at.layer)) choose_core_neurons(at.layer, at.be);
  if (at.layer + 1 == layers_) find_silent_layers();
  if (!matches_at(at.layer)) return {};
  if (matches_core_neurons_at(at.layer) && core_neurons(at.layer).empty()) return {};
  const std::vector<std::int32_t> image_rows = rows_of(token_kind::image, at, at.positions.size);
  if (image_rows.empty()) return {};
  choose_core_tokens(at, image_rows);
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

// kept_rows_: all text, and the image tokens that the rule keeps.
template <selecting_backend B>
void core_matching<B>::choose_core_tokens(const layer_context<B>& at,
                                          const std::vector<std::int32_t>& image_rows) {
  const std::vector<std::int32_t> best = best_image_rows(at, image_rows);
  token_match match{at.layer, {}, {}, std::ssize(image_rows)};
  kept_rows_.clear();
  for (index row = 0; row < at.positions.size; ++row) {
    const bool image = kind_of(at.positions[row]) == token_kind::image;
    if (image && !std::ranges::binary_search(best, row)) continue;
    kept_rows_.push_back(static_cast<std::int32_t>(row));
    match.kept_positions.push_back(at.positions[row]);
    if (image) match.kept_image_positions.push_back(at.positions[row]);
  }
  matches_.push_back(std::move(match));
}

// What the layer is asked to drop, by the mode of pruning.
template <selecting_backend B>
token_selection core_matching<B>::prune(const layer_context<B>& at) {
  if (config_.pruning == pruning_mode::zero_in_place) zero_dropped(at);
  if (config_.pruning == pruning_mode::zero_in_place || std::ssize(kept_rows_) == at.positions.size)
    return {};
  return {index_view<>{kept_rows_.data(), std::ssize(kept_rows_)},
          config_.pruning == pruning_mode::everywhere ? cache_scope::every_layer : cache_scope::later_layers,
          config_.positions == position_policy::contiguous};
}

// Rows of the image tokens that the rule keeps, ascending.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::best_image_rows(const layer_context<B>& at,
                                                            const std::vector<std::int32_t>& image_rows) {
  const auto choose = [&](const auto& score_of) {
    using score = std::decay_t<decltype(score_of(0))>;
    std::vector<score> scores;
    for (const std::int32_t row : image_rows) scores.push_back(score_of(row));
    std::vector<std::int32_t> kept =
        select::core_tokens(vector_view<const score>{scores.data(), std::ssize(scores)}, config_.keep);
    for (std::int32_t& place : kept) place = image_rows[static_cast<std::size_t>(place)];
    return kept;
  };
  switch (config_.criterion) {
    case token_criterion::attention:
    case token_criterion::projection:
      return choose([&](std::int32_t row) { return attention_scores_[static_cast<std::size_t>(row)]; });
    case token_criterion::random:
      return choose(
          [&](std::int32_t row) { return detail::random_score(config_.seed, at.layer, at.positions[row]); });
    case token_criterion::overlap: break;
  }
  const std::vector<std::int32_t> scores = overlap_scores(at);
  return choose([&](std::int32_t row) { return scores[static_cast<std::size_t>(row)]; });
}

// m(x) = |Γ(x) ∩ reference| of every row.
template <selecting_backend B>
std::vector<std::int32_t> core_matching<B>::overlap_scores(const layer_context<B>& at) {
  const index rows = at.positions.size, words = select::words_for(shape_.intermediate_size);
  const matrix_view<const std::uint64_t, space> bits{bits_.data(), rows, words, words};
  const auto reference =
      config_.reference == reference_set::sentence
          ? vector_view<const std::uint64_t, space>(sets_[static_cast<std::size_t>(at.layer)].bits())
          : bits.row(anchor_row(at));
  auto placed = at.be.template allocate<std::int32_t>(rows);
  at.be.overlap(placed.view(), bits, reference);
  std::vector<std::int32_t> scores(static_cast<std::size_t>(rows));
  detail::naming_layer(at.layer, [&] {
    at.be.download(vector_view<std::int32_t>{scores.data(), rows}, placed.view());
  });
  return scores;
}

template <selecting_backend B>
index core_matching<B>::anchor_row(const layer_context<B>& at) const {
  const index offset = config_.anchor < 0 ? std::ssize(kinds_) + config_.anchor : config_.anchor;
  const auto position = static_cast<std::int32_t>(first_position_ + offset);
  return std::ranges::lower_bound(at.positions, position) - at.positions.begin();
}

// The released code's masking: the dropped rows of this layer's keys and values become zero and stay.
template <selecting_backend B>
void core_matching<B>::zero_dropped(const layer_context<B>& at) {
  const index rows = at.positions.size, first = at.cache.length() - rows;
  std::vector<std::int32_t> dropped;
  for (index row = 0; row < rows; ++row)
    if (!std::ranges::binary_search(kept_rows_, row)) dropped.push_back(static_cast<std::int32_t>(row));
  if (dropped.empty()) return;
  const auto placed = device_indices(at.be, {dropped.data(), std::ssize(dropped)});
  at.be.zero_rows(at.cache.keys().middle_rows(first, rows), placed.view());
  at.be.zero_rows(at.cache.values().middle_rows(first, rows), placed.view());
}

}  // namespace corematching

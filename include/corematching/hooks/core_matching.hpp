// SPDX-License-Identifier: Apache-2.0
// CoreMatching (arXiv 2505.19235) as two hooks over one decoder: while the prompt is prefilled, one observes
// FFN activations, finds each layer's core neurons, and keeps core tokens at the matching layers; while the
// answer is decoded, the other asks for the core neurons alone. Their shared state belongs to one sequence.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/hooks/token_criteria.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/token_kind.hpp"
#include "corematching/select/core_tokens.hpp"

namespace corematching {

/// What one matching layer decided.
struct token_match {
  index layer = 0;
  std::vector<std::int32_t> kept_positions;        // original positions of all tokens that go on
  std::vector<std::int32_t> kept_image_positions;  // the image tokens among them
  index image_tokens = 0;                          // that were alive before
};

template <backend B>
class core_matching {
 public:
  using space = typename B::space;
  using neuron_set = decltype(std::declval<B&>().core_neurons({}, 1.0));

  class prefill_hook;
  class attention_prefill_hook;
  class decode_hook;

  /// For a decoder of `layers` layers; throws `error` where `config` does not fit it.
  core_matching(B& be, core_matching_config config, index layers, const decoder_shape& shape)
      : config_(std::move(config)), layers_(layers), shape_(shape), sets_(static_cast<std::size_t>(layers)) {
    config_.validate(layers, shape.intermediate_size);
    frequency_.reserve(static_cast<std::size_t>(layers));
    const std::vector<std::int32_t> zeros(static_cast<std::size_t>(shape.intermediate_size), 0);
    for (index layer = 0; layer < layers; ++layer) {
      frequency_.push_back(be.template allocate<std::int32_t>(shape.intermediate_size));
      be.upload(frequency_.back().view(), {zeros.data(), std::ssize(zeros)});
    }
  }

  /// Announces a prompt: `kinds` of its tokens, the first of which stands at original position
  /// `first_position`. Frequencies of earlier prompts of the same sequence go on counting.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds);

  const core_matching_config& config() const { return config_; }
  /// One entry for each matching layer that saw image tokens of the current prompt.
  const std::vector<token_match>& matches() const { return matches_; }
  /// C_ρ^β of a layer, ascending; empty where the layer was not observed.
  index_view<space> core_neurons(index layer) const {
    return sets_[static_cast<std::size_t>(layer)].indices();
  }
  /// Host seconds spent on finding core neurons and core tokens.
  double selection_seconds() const { return selection_seconds_; }

 private:
  using clock = std::chrono::steady_clock;
  using activation_view = matrix_view<const typename B::value_type, space>;

  bool matches_at(index layer) const { return config_.matches_at(layer, layers_); }
  bool needs_core_neurons(index layer) const {
    return config_.decodes_sparsely(layer, layers_) ||
           (matches_at(layer) && config_.criterion == token_criterion::overlap &&
            config_.reference == reference_set::sentence);
  }
  bool needs_activated_neurons(index layer) const {
    return needs_core_neurons(layer) || (matches_at(layer) && config_.criterion == token_criterion::overlap);
  }
  token_kind kind_of(std::int32_t position) const {
    return kinds_[static_cast<std::size_t>(position - first_position_)];
  }

  void observe(const layer_context<B>& at, activation_view activation);
  void observe(const layer_context<B>& at, const attention_inputs<B>& in);
  token_selection keep(const layer_context<B>& at);
  std::vector<std::int32_t> counted_rows(const layer_context<B>& at, index rows) const;
  std::vector<std::int32_t> best_image_rows(const layer_context<B>& at,
                                            const std::vector<std::int32_t>& image_rows);
  std::vector<std::int32_t> overlap_scores(const layer_context<B>& at);
  index anchor_row(const layer_context<B>& at) const;
  void zero_dropped(const layer_context<B>& at);

  core_matching_config config_;
  index layers_;
  decoder_shape shape_;

  std::vector<typename B::template buffer<std::int32_t>> frequency_;  // f(n) of each layer
  std::vector<neuron_set> sets_;                                      // C_ρ^β of each layer

  bool any_counted_ = false;                             // whether a prompt had tokens to count
  std::int32_t first_position_ = 0;                      // of the current prompt
  std::vector<token_kind> kinds_;                        // of its tokens
  std::vector<token_match> matches_;                     // of its matching layers
  typename B::template buffer<std::uint64_t> bits_;      // Γ of the rows of the current layer
  typename B::template buffer<std::int32_t> activated_;  // |Γ| of the rows of the current layer
  std::vector<double> attention_scores_;                 // of the rows of the current layer
  std::vector<std::int32_t> kept_rows_;                  // the last answer at site::keep_tokens
  double selection_seconds_ = 0;
};

/// Attends prefill. Where the criterion looks at attention, use `attention_prefill_hook`.
template <backend B>
class core_matching<B>::prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::keep_tokens>;
  explicit prefill_hook(core_matching& state) : state_(&state) {}

  void operator()(site::ffn_activation, const layer_context<B>& at, activation_view activation) {
    state_->observe(at, activation);
  }
  token_selection operator()(site::keep_tokens, const layer_context<B>& at) { return state_->keep(at); }

 protected:
  core_matching* state_;
};

/// Attends prefill, for the criteria `attention` and `projection`.
template <backend B>
class core_matching<B>::attention_prefill_hook : public prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::attention, site::keep_tokens>;
  using prefill_hook::prefill_hook;
  using prefill_hook::operator();

  void operator()(site::attention, const layer_context<B>& at, const attention_inputs<B>& in) {
    this->state_->observe(at, in);
  }
};

/// Attends decode: core neurons in the sparse layers, all neurons in the others.
template <backend B>
class core_matching<B>::decode_hook {
 public:
  using attends = sites<site::ffn_neurons>;
  explicit decode_hook(const core_matching& state) : state_(&state) {}

  neuron_selection<space> operator()(site::ffn_neurons, const layer_context<B>& at) const {
    if (!state_->config_.decodes_sparsely(at.layer, state_->layers_)) return {};
    return state_->core_neurons(at.layer);
  }

 private:
  const core_matching* state_;
};

/// Calls `body` with the prefill hook that the criterion of `state` needs.
template <backend B, class Body>
decltype(auto) with_prefill_hook(core_matching<B>& state, Body&& body) {
  const token_criterion criterion = state.config().criterion;
  if (criterion == token_criterion::attention || criterion == token_criterion::projection)
    return body(typename core_matching<B>::attention_prefill_hook(state));
  return body(typename core_matching<B>::prefill_hook(state));
}

template <backend B>
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
  if (config_.sparse_tokens && config_.criterion == token_criterion::overlap &&
      config_.reference == reference_set::anchor && has(token_kind::image)) {
    const index anchor = config_.anchor < 0 ? tokens + config_.anchor : config_.anchor;
    require(anchor >= 0 && anchor < tokens, "anchor token ", config_.anchor, " lies outside the prompt of ",
            tokens, " tokens");
    require(kinds[static_cast<std::size_t>(anchor)] == token_kind::text, "anchor token ", config_.anchor,
            " is an image token; it must be text");
  }
  any_counted_ = counts;
  first_position_ = first_position;
  kinds_.assign(kinds.begin(), kinds.end());
  matches_.clear();
}

// Γ(x) of the rows handed over, and f(n) += 1 for the core neurons of each that counts.
template <backend B>
void core_matching<B>::observe(const layer_context<B>& at, activation_view activation) {
  if (!needs_activated_neurons(at.layer)) return;
  const auto start = clock::now();
  const index words = select::words_for(activation.cols), alive = at.positions.size;
  if (bits_.size() < alive * words) bits_ = at.be.template allocate<std::uint64_t>(alive * words);
  if (activated_.size() < alive) activated_ = at.be.template allocate<std::int32_t>(alive);

  const matrix_view<std::uint64_t, space> bits{bits_.data() + at.first_row * words, activation.rows, words,
                                               words};
  const vector_view<std::int32_t, space> activated{activated_.data() + at.first_row, activation.rows};
  try {
    at.be.activated_neurons(bits, activated, activation);
  } catch (const error& problem) {
    fail("layer ", at.layer, ": ", problem.what());
  }
  if (needs_core_neurons(at.layer)) {
    require(config_.count != core_count::mean_count || activation.rows == alive,
            "core_count::mean_count needs the whole prompt in one call: scratch.ffn_rows() must be at least ",
            alive);
    auto& frequency = frequency_[static_cast<std::size_t>(at.layer)];
    if (config_.count_over == counted_tokens::all) {
      at.be.count_core_neurons(frequency.view(), activation, activated, config_.rho, config_.count);
    } else {
      const std::vector<std::int32_t> rows = counted_rows(at, activation.rows);
      auto placed = at.be.template allocate<std::int32_t>(std::ssize(rows));
      at.be.upload(placed.view(), {rows.data(), std::ssize(rows)});
      at.be.count_core_neurons(frequency.view(), activation, activated, config_.rho, config_.count,
                               index_view<space>(placed.view()));
    }
  }
  selection_seconds_ += std::chrono::duration<double>(clock::now() - start).count();
}

template <backend B>
std::vector<std::int32_t> core_matching<B>::counted_rows(const layer_context<B>& at, index rows) const {
  const token_kind wanted = config_.count_over == counted_tokens::text ? token_kind::text : token_kind::image;
  std::vector<std::int32_t> result;
  for (index i = 0; i < rows; ++i)
    if (kind_of(at.positions[at.first_row + i]) == wanted) result.push_back(static_cast<std::int32_t>(i));
  return result;
}

template <backend B>
void core_matching<B>::observe(const layer_context<B>& at, const attention_inputs<B>& in) {
  if (!matches_at(at.layer)) return;
  const auto start = clock::now();
  attention_scores_ = config_.criterion == token_criterion::attention
                          ? detail::attention_scores(at.be, in, at.positions.size)
                          : detail::projection_scores(at.be, in, at.positions.size);
  selection_seconds_ += std::chrono::duration<double>(clock::now() - start).count();
}

// Core neurons of the layer; at a matching layer, then, which tokens go on.
template <backend B>
token_selection core_matching<B>::keep(const layer_context<B>& at) {
  const auto start = clock::now();
  const auto layer = static_cast<std::size_t>(at.layer);
  if (needs_core_neurons(at.layer)) {
    sets_[layer] = at.be.core_neurons(frequency_[layer].view(), config_.beta);
    require(!sets_[layer].indices().empty(), "layer ", at.layer,
            ": no core neurons, since no counted token activates any neuron");
  }
  std::vector<std::int32_t> image_rows;
  if (matches_at(at.layer))
    for (index row = 0; row < at.positions.size; ++row)
      if (kind_of(at.positions[row]) == token_kind::image)
        image_rows.push_back(static_cast<std::int32_t>(row));

  token_selection selection;
  if (!image_rows.empty()) {
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
    if (config_.pruning == pruning_mode::zero_in_place) {
      zero_dropped(at);
    } else if (std::ssize(kept_rows_) < at.positions.size) {
      selection.rows = index_view<>{kept_rows_.data(), std::ssize(kept_rows_)};
      selection.scope =
          config_.pruning == pruning_mode::everywhere ? cache_scope::every_layer : cache_scope::later_layers;
      selection.renumber = config_.positions == position_policy::contiguous;
    }
  }
  selection_seconds_ += std::chrono::duration<double>(clock::now() - start).count();
  return selection;
}

// Rows of the image tokens that the rule keeps, ascending.
template <backend B>
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
    case token_criterion::overlap:
      break;
  }
  const std::vector<std::int32_t> scores = overlap_scores(at);
  return choose([&](std::int32_t row) { return scores[static_cast<std::size_t>(row)]; });
}

// m(x) = |Γ(x) ∩ reference| of every row.
template <backend B>
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
  at.be.download(vector_view<std::int32_t>{scores.data(), rows}, placed.view());
  return scores;
}

template <backend B>
index core_matching<B>::anchor_row(const layer_context<B>& at) const {
  const index offset = config_.anchor < 0 ? std::ssize(kinds_) + config_.anchor : config_.anchor;
  const auto position = static_cast<std::int32_t>(first_position_ + offset);
  return std::ranges::lower_bound(at.positions, position) - at.positions.begin();
}

// The released code's masking: the dropped rows of this layer's keys and values become zero and stay.
template <backend B>
void core_matching<B>::zero_dropped(const layer_context<B>& at) {
  const index rows = at.positions.size, first = at.cache.length() - rows;
  std::vector<std::int32_t> dropped;
  for (index row = 0; row < rows; ++row)
    if (!std::ranges::binary_search(kept_rows_, row)) dropped.push_back(static_cast<std::int32_t>(row));
  if (dropped.empty()) return;
  auto placed = at.be.template allocate<std::int32_t>(std::ssize(dropped));
  at.be.upload(placed.view(), {dropped.data(), std::ssize(dropped)});
  at.be.zero_rows(at.cache.keys().middle_rows(first, rows), placed.view());
  at.be.zero_rows(at.cache.values().middle_rows(first, rows), placed.view());
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// CoreMatching (arXiv 2505.19235) as two hooks over one decoder: while the prompt is prefilled, one observes
// FFN activations, finds each layer's core neurons, and keeps core tokens at the matching layers; while the
// answer is decoded, the other asks for the core neurons alone. Their shared state belongs to one sequence.
// What they do is in core_matching_steps.hpp, how image tokens are scored in core_matching_scores.hpp;
// options that are there for comparison have headers of their own: token_criteria.hpp,
// core_matching_attention.hpp, released_code.hpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/hooks/kept_tokens.hpp"
#include "corematching/hooks/prompt_tokens.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

struct token_score {
  std::int32_t position = 0;  // original
  double score = 0;           // integers but where tokens are kept by attention or at random
};

/// What one matching layer decided.
struct token_match {
  index layer = 0;
  std::vector<std::int32_t> kept_positions;        // original positions of all tokens that go on
  std::vector<std::int32_t> kept_image_positions;  // the image tokens among them
  index image_tokens = 0;                          // that were alive before
  std::vector<token_score> image_scores = {};      // of each of them, in the prompt's order
  std::vector<token_group> groups = {};            // one for each picture, or one for all of them
};

template <selecting_backend B>
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
    const auto all_zero = [&] {
      auto frequency = be.template allocate<std::int32_t>(shape.intermediate_size);
      be.upload(frequency.view(), {zeros.data(), std::ssize(zeros)});
      return frequency;
    };
    for (index layer = 0; layer < layers; ++layer) {
      frequency_.push_back(all_zero());
      if (!contrasts_at(layer)) continue;
      contrast_[layer].emplace(token_kind::image, all_zero());
      if (config_.is_matched_with(reference_set::text))
        contrast_[layer].emplace(token_kind::text, all_zero());
    }
  }

  /// Announces a prompt: `kinds` of its tokens, the first of which stands at original position
  /// `first_position`, and how many image tokens each of its pictures has (nothing: all are of one).
  /// Frequencies of earlier prompts of the same sequence go on counting.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds,
                    std::span<const index> picture_sizes = {});

  const core_matching_config& config() const { return config_; }
  /// One entry for each matching layer that saw image tokens of the current prompt.
  const std::vector<token_match>& matches() const { return matches_; }
  /// C_ρ^β of a layer, ascending; empty where the layer was not observed, and where no counted token had a
  /// core neuron in it.
  index_view<space> core_neurons(index layer) const;
  /// Layers, ascending, whose core neurons were wanted and which have none: they decode with all neurons, and
  /// match nothing.
  const std::vector<index>& silent_layers() const { return silent_layers_; }
  /// The neurons that decoding computes in a layer: its core neurons in a sparse layer, otherwise all.
  neuron_selection<space> decode_neurons(index layer) const {
    if (!config_.decodes_sparsely(layer, layers_)) return {};
    const index_view<space> core = core_neurons(layer);
    return core.empty() ? neuron_selection<space>() : neuron_selection<space>(core);
  }
  /// Host seconds spent on finding core neurons and core tokens.
  double selection_seconds() const { return selection_seconds_; }

 private:
  // Adds the seconds of its own life to selection_seconds_.
  class stopwatch {
   public:
    explicit stopwatch(core_matching& of) : of_(of) {}
    stopwatch(const stopwatch&) = delete;
    stopwatch& operator=(const stopwatch&) = delete;
    ~stopwatch() { of_.selection_seconds_ += std::chrono::duration<double>(clock::now() - start_).count(); }

   private:
    using clock = std::chrono::steady_clock;
    core_matching& of_;
    clock::time_point start_ = clock::now();
  };

  using activation_view = matrix_view<const float, space>;
  using set_view = vector_view<const std::uint64_t, space>;  // neurons, as bits
  using set_rows = matrix_view<const std::uint64_t, space>;
  using frequencies = typename B::template buffer<std::int32_t>;

  bool matches_at(index layer) const { return config_.matches_at(layer, layers_); }
  bool matches_core_neurons_at(index layer) const {
    return matches_at(layer) && config_.is_matched_with(reference_set::sentence);
  }
  bool contrasts_at(index layer) const {
    return matches_at(layer) && config_.criterion == token_criterion::contrast;
  }
  bool needs_core_neurons(index layer) const {
    return config_.decodes_sparsely(layer, layers_) || matches_core_neurons_at(layer);
  }
  bool needs_activated_neurons(index layer) const {
    return needs_core_neurons(layer) || (matches_at(layer) && config_.matches_neurons());
  }

  void observe(const layer_context<B>& at, activation_view activation);
  void observe(const layer_context<B>& at, const attention_inputs<B>& in);
  token_selection keep(const layer_context<B>& at);
  void count_core_neurons(const layer_context<B>& at, activation_view activation,
                          vector_view<std::int32_t, space> activated, std::optional<token_kind> counted,
                          frequencies& frequency);
  void choose_core_neurons(index layer, B& be);
  void find_silent_layers();
  detail::kept_images best_rows(const layer_context<B>& at, std::vector<prompt_tokens::rows> pictures);
  set_rows activated_sets(const layer_context<B>& at) const;
  std::vector<std::int32_t> overlap_scores(const layer_context<B>& at, set_view reference);
  std::vector<std::int32_t> overlap_scores(const layer_context<B>& at);
  std::vector<std::int32_t> contrast_scores(const layer_context<B>& at);
  std::vector<std::int64_t> rarity_scores(const layer_context<B>& at,
                                          const std::vector<prompt_tokens::rows>& pictures);
  std::vector<std::int32_t> reference_counts(const layer_context<B>& at, std::span<const std::uint64_t> sets);
  void keep_rows(const layer_context<B>& at, detail::kept_images best);
  token_selection prune(const layer_context<B>& at);

  core_matching_config config_;
  index layers_;
  decoder_shape shape_;

  std::vector<frequencies> frequency_;                           // f(n) of each layer
  std::vector<neuron_set> sets_;                                 // C_ρ^β of each layer
  std::map<index, std::map<token_kind, frequencies>> contrast_;  // f(n) over image or text, where contrasted

  prompt_tokens tokens_;                                 // of the current prompt
  std::vector<token_match> matches_;                     // of its matching layers
  std::vector<index> silent_layers_;                     // without core neurons
  typename B::template buffer<std::uint64_t> bits_;      // Γ of the rows of the current layer
  typename B::template buffer<std::int32_t> activated_;  // |Γ| of the rows of the current layer
  std::vector<double> attention_scores_;                 // of the rows of the current layer
  std::vector<std::int32_t> kept_rows_;                  // the last answer at site::keep_tokens
  double selection_seconds_ = 0;
};

/// Attends prefill; with_prefill_hook() chooses another one where tokens are kept by attention.
template <selecting_backend B>
class core_matching<B>::prefill_hook {
 public:
  using attends = sites<site::ffn_activation, site::keep_tokens, site::decode_neurons>;
  explicit prefill_hook(core_matching& state) : state_(&state) {}

  void operator()(site::ffn_activation, const layer_context<B>& at, activation_view activation) {
    state_->observe(at, activation);
  }
  token_selection operator()(site::keep_tokens, const layer_context<B>& at) { return state_->keep(at); }
  neuron_selection<space> operator()(site::decode_neurons, const layer_context<B>& at) const {
    return state_->decode_neurons(at.layer);
  }

 protected:
  core_matching* state_;
};

/// Attends decode: core neurons in the sparse layers, all neurons in the others.
template <selecting_backend B>
class core_matching<B>::decode_hook {
 public:
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = true;
  explicit decode_hook(const core_matching& state) : state_(&state) {}

  neuron_selection<space> operator()(site::ffn_neurons, const layer_context<B>& at) const {
    return state_->decode_neurons(at.layer);
  }

 private:
  const core_matching* state_;
};

}  // namespace corematching

#include "corematching/hooks/core_matching_attention.hpp"
#include "corematching/hooks/core_matching_scores.hpp"
#include "corematching/hooks/core_matching_steps.hpp"

// SPDX-License-Identifier: Apache-2.0
// A LLaMA-like language model: embedding, decoder layers, final norm, head. Weights are const and shared;
// what belongs to one conversation is a `sequence`.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llama/batch.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/model/llama/layer_source.hpp"
#include "corematching/model/llama/prompt_pass.hpp"
#include "corematching/model/llama/resident_layers.hpp"
#include "corematching/model/llama/rope.hpp"
#include "corematching/model/llama/sequence.hpp"
#include "corematching/model/llama/weights.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/decoder_layer.hpp"
#include "corematching/nn/transfer.hpp"
#include "corematching/nn/without.hpp"

namespace corematching {

template <backend B>
class llama {
 public:
  using space = typename B::space;
  using view = matrix_view<float, space>;

  /// Loads the model through `reader`, a weight_reader or packed_reader; `config` must describe it. Throws
  /// `error` for tensors that are missing or of another shape.
  template <class Reader>
  requires(!std::same_as<Reader, llama_weights<B>>) llama(B& be, const llama_config& config, Reader& reader)
      : llama(be, config, read_llama_weights<B>(config, reader)) {}

  /// A model of weights that are in memory already; their shapes must be those of `config`. It ties embedding
  /// and head where the weights have one for both.
  llama(B& be, const llama_config& config, llama_weights<B> weights)
      : llama(be, config, std::make_unique<resident_layers<B>>(config, std::move(weights))) {}

  /// A model whose weights come from `layers`, which fit `config`.
  llama(B& be, const llama_config& config, std::unique_ptr<layer_source<B>> layers)
      : config_(config), layers_(std::move(layers)) {
    config_.tie_word_embeddings = layers_->outer().tied();
    const std::vector<float> frequencies = rotary_frequencies(config_.rope, config_.head_dim);
    frequencies_ = be.template allocate<float>(std::ssize(frequencies));
    be.upload(frequencies_.view(), {frequencies.data(), std::ssize(frequencies)});
  }

  const llama_config& config() const { return config_; }
  layer_bytes bytes_of_layer(index i) const { return layers_->bytes_of_layer(i); }
  /// Bytes of weights read from the file so far, under a memory limit.
  std::uint64_t streamed_weight_bytes() const { return layers_->streamed_bytes(); }
  /// Most bytes of weights that were held at once.
  std::uint64_t held_weight_bytes() const { return layers_->held_bytes(); }
  std::uint64_t head_weight_bytes() const { return stored_bytes(head().view); }
  dtype weight_type() const { return head().view.type; }

  /// Positions that a sequence may use.
  index context() const { return config_.context(); }

  /// An empty sequence that sets aside cache rows for `headroom` tokens beyond each prompt and stores keys
  /// and values as `cache_type`: f32, f16 or bf16.
  sequence<B> start(B& be, index headroom, dtype cache_type = dtype::f32) const {
    const decoder_shape shape = shape_of(config_);
    return {kv_cache<B>(config_.layers, shape.attention.kv_size(), headroom, cache_type),
            scratch<B>(be, shape, 1, 1),
            matrix<B>(be, 1, config_.hidden_size),
            matrix<B>(be, 1, config_.vocab_size),
            be.template allocate<std::int32_t>(2),
            layer_subsets<B>(static_cast<std::size_t>(config_.layers))};
  }

  /// x[i] = embedding of ids[i]; x [T, D]. Throws `error` for an id outside the vocabulary.
  void embed(B& be, view x, std::span<const std::int32_t> ids) const {
    config_.require_known(ids);
    layers_->embed(be, x, ids, device_indices(be, {ids.data(), std::ssize(ids)}).view());
  }

  /// Runs the prompt's embeddings x [T, D] (lost) through all layers, behind whatever the sequence holds, and
  /// returns the logits [vocabulary] after its last token. `ffn_rows` bounds the rows whose FFN activations
  /// exist at a time. The hook may drop tokens. After an exception the sequence
  /// holds a part of the prompt and is of no further use.
  template <hook_of<B> H = no_hook>
  std::vector<float> prefill(B& be, sequence<B>& seq, view x, index ffn_rows, H&& hook = {}) const {
    std::vector<std::int32_t> places(static_cast<std::size_t>(x.rows));
    std::iota(places.begin(), places.end(), 0);
    return prefill(be, seq, x, {{places.data(), x.rows}, x.rows}, ffn_rows, hook);
  }

  /// The same for a prompt of which x has but some tokens; the others never were, except that the tokens
  /// behind them keep their positions.
  template <hook_of<B> H = no_hook>
  std::vector<float> prefill(B& be, sequence<B>& seq, view x, const prompt_places& places, index ffn_rows,
                             H&& hook = {}) const {
    prompt_pass<B> pass(be, *this, seq, x, places, ffn_rows);
    pass.advance(be, config_.layers, hook);
    return values_of(be, seq.logits.view());
  }

  /// One step: runs token `id` and returns the logits [vocabulary] after it.
  template <hook_of<B> H = no_hook>
  std::vector<float> decode(B& be, sequence<B>& seq, std::int32_t id, H&& hook = {}) const {
    step(be, seq, id, hook);
    return values_of(be, seq.logits.view());
  }

  /// As many steps as there are `ids`, whatever the model would have said itself (teacher forcing), in one
  /// pass that reads what all tokens need once. Returns the logits [T, vocabulary] after each. Throws `error`
  /// where there are none. After an exception the sequence is of no further use.
  template <hook_of<B> H = no_hook>
  std::vector<float> decode(B& be, sequence<B>& seq, std::span<const std::int32_t> ids, H&& hook = {}) const {
    const index count = std::ssize(ids);
    require(count > 0, "there are no tokens to decode");
    require_room(seq, count);
    matrix<B> x(be, count, config_.hidden_size), logits(be, count, config_.vocab_size);
    embed(be, x.view(), ids);
    std::vector<std::int32_t> positions(ids.size());
    std::iota(positions.begin(), positions.end(), seq.next_position);
    const index_view<> places{positions.data(), count};
    scratch<B> s(be, shape_of(config_), count, count);
    run_layers(be, seq, s, x.view(), places, device_indices(be, places).view(), hook);
    compute_logits(be, s, logits.view(), x.view());
    seq.next_position += static_cast<std::int32_t>(count);
    return values_of(be, logits.view());
  }

  /// The same, but the logits stay where they are computed, in seq.logits.
  template <hook_of<B> H = no_hook>
  void step(B& be, sequence<B>& seq, std::int32_t id, H&& hook = {}) const {
    require_room(seq, 1);
    config_.require_known({&id, 1});
    const std::int32_t input[] = {id, seq.next_position};
    be.upload(seq.input.view(), {input, 2});
    const auto layers = [&](auto& by) {
      layers_->embed(be, seq.hidden.view(), {&id, 1}, seq.device_id());
      run_layers(be, seq, seq.one_token, seq.hidden.view(), {&seq.next_position, 1}, seq.device_position(),
                 by);
      compute_logits(be, seq.one_token, seq.logits.view(), seq.hidden.view());
    };
    if (layers_->stays_in_place())
      seq.steps.run(be, seq.cache, {number_, seq.next_position, seq.device_position()}, hook, layers);
    else
      layers(hook);
    ++seq.next_position;
  }

  /// Whether sequences can take steps together: all weights are at hand, whichever of them asks.
  bool steps_together() const { return layers_->stays_in_place(); }
  /// Memory for steps of up to `capacity` sequences.
  batch_memory<B> make_batch(B& be, index capacity) const {
    return {be, shape_of(config_), config_.vocab_size, capacity};
  }

  /// A step of each of several sequences, all different ones. Row i of the result, which stays in `memory`
  /// until the next step, holds the logits after the token of member i. On a CPU, up to the few rows that
  /// share kernels with a single one, they are bit for bit those of step(); otherwise up to rounding.
  /// Throws `error` where there is no member, for more than `memory` has room for, for a model that does not
  /// keep its weights at hand, and as step() does; the sequences are then as they were.
  view step_together(B& be, batch_memory<B>& memory, std::span<const batch_member<B>> members) const {
    const index count = std::ssize(members);
    require(count > 0 && count <= memory.capacity(), "a step of ", count, " sequences in memory for ",
            memory.capacity());
    require(steps_together(), "sequences of a model with a limit of memory take no steps together");
    const view x = embed_together(be, memory, members);
    const index_view<space> positions{memory.input.data() + count, count};
    detail::unfinished_step<B> unfinished(members);
    std::vector<layer_member<B>> in_layer(members.size());
    for (index i = 0; i < config_.layers; ++i) {
      for (std::size_t m = 0; m < members.size(); ++m)
        in_layer[m] = {&members[m].seq->cache[i], members[m].wants.empty()
                                                      ? wanted_neurons<space>()
                                                      : members[m].wants[static_cast<std::size_t>(i)]};
      corematching::step_together<B>(be, layers_->decoding_layer(be, i, {}), memory.scratch)
          .run(x, positions, frequencies_.view(), in_layer);
    }
    compute_logits(be, memory.scratch.plain, memory.logits.top_rows(count), x);
    unfinished.finish();
    for (const batch_member<B>& member : members) ++member.seq->next_position;
    return memory.logits.top_rows(count);
  }

 private:
  friend class prompt_pass<B>;

  const weight<space>& head() const { return layers_->outer().head; }

  // The embeddings of the members' tokens; ids and positions go into the memory's input.
  view embed_together(B& be, batch_memory<B>& memory, std::span<const batch_member<B>> members) const {
    const index count = std::ssize(members);
    std::vector<std::int32_t> input;
    for (const batch_member<B>& member : members) {
      require_room(*member.seq, 1);
      input.push_back(member.id);
    }
    config_.require_known(input);
    for (const batch_member<B>& member : members) input.push_back(member.seq->next_position);
    be.upload(vector_view<std::int32_t, space>{memory.input.data(), 2 * count}, {input.data(), 2 * count});
    const view x = memory.hidden.top_rows(count);
    layers_->embed(be, x, {input.data(), members.size()}, {memory.input.data(), count});
    return x;
  }

  // Runs the embeddings x [T, D] of decoded tokens through all layers, in place.
  template <class H>
  void run_layers(B& be, sequence<B>& seq, scratch<B>& s, view x, index_view<> positions,
                  index_view<space> device_positions, H& hook) const {
    for (index i = 0; i < config_.layers; ++i) {
      layer_context<B> at{be, i, positions, seq.cache[i]};
      const decoder_layer<B>& layer = layers_->decoding_layer(be, i, seq.subsets);
      const auto run = [&](auto& by) { layer.forward(at, s, x, device_positions, frequencies_.view(), by); };
      if constexpr (attends<H, site::ffn_neurons>) {
        if (layer.neurons() < config_.intermediate_size) {
          // It holds the neurons that the hook asked for when the prompt was read, and no others.
          without<site::ffn_neurons, H&> others(hook);
          run(others);
          continue;
        }
      }
      run(hook);
    }
  }

  static constexpr const char* window_note = " (its sliding window, where tokens are dropped)";

  static bool lacks_tokens(const sequence<B>& seq) {
    for (index i = 0; i < seq.cache.layers(); ++i)
      if (seq.cache[i].length() < seq.next_position) return true;
    return false;
  }

  void require_room(const sequence<B>& seq, index tokens) const {
    const index room = lacks_tokens(seq) ? config_.context_when_dropping() : context();
    require(seq.next_position + tokens <= room, tokens, " tokens behind position ", seq.next_position,
            " do not fit the model's context of ", room, " tokens", room < context() ? window_note : "");
  }

  void require_dropping(std::int32_t end) const {
    require(end <= config_.context_when_dropping(), "tokens of a prompt that ends at ", end,
            " are dropped, which a sliding window of ", config_.context_when_dropping(), " does not allow");
  }

  // logits [T, vocabulary] after the rows x [T, D].
  void compute_logits(B& be, scratch<B>& s, view logits, view x) const {
    const view normed = s.normed(x.rows);
    be.rms_norm(normed, x, layers_->outer().norm.view(), static_cast<float>(config_.rms_norm_eps));
    be.matmul(logits, normed, head().view, {});
  }

  static std::vector<float> values_of(B& be, matrix_view<const float, space> from) {
    std::vector<float> values;
    download_values(be, from, values);
    return values;
  }

  std::uint64_t number_ = next_model_number();
  llama_config config_;
  std::unique_ptr<layer_source<B>> layers_;
  parameters<B> frequencies_;
};

}  // namespace corematching

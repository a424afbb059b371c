// SPDX-License-Identifier: Apache-2.0
// A LLaMA-like language model: embedding, decoder layers, final norm, head. Weights are const and shared;
// what belongs to one conversation is a `sequence`.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llama/alive_tokens.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/model/llama/layer_stream.hpp"
#include "corematching/model/llama/rope.hpp"
#include "corematching/model/llama/sequence.hpp"
#include "corematching/model/llama/weights.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/decoder_layer.hpp"
#include "corematching/nn/transfer.hpp"

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
      : config_(config),
        embedding_(std::move(weights.embedding)),
        norm_(std::move(weights.norm)),
        head_(std::move(weights.head)) {
    require(std::ssize(weights.layers) == config.layers, "weights of ", weights.layers.size(),
            " layers for a model of ", config.layers);
    config_.tie_word_embeddings = head_.view.data == embedding_.view.data;
    for (decoder_weights<B>& layer : weights.layers) layers_.push_back(layer_of<B>(config, std::move(layer)));
    place_frequencies(be);
  }

  /// A model that never holds more than `memory_limit` bytes of its weights, which are those of `file`;
  /// layer_stream.hpp says what counts. It answers as the whole model does.
  llama(B& be, const llama_config& config, const packed_file& file, std::uint64_t memory_limit)
      : config_(config), stream_(std::make_unique<layer_stream<B>>(file, config, memory_limit)) {
    const auto read = [&](byte_range range) {
      auto memory = stream_->load(be, range);
      return packed_reader<B>(be, stream_->layout(), memory.get(), memory, range.first);
    };
    packed_reader<B> tail = read(file.layout().tail());
    norm_ = tail.vector("model.norm.weight", config.hidden_size);
    if (config.tie_word_embeddings)
      embedding_ = read(file.layout().embedding())
                       .matrix("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    head_ = config.tie_word_embeddings
                ? embedding_
                : tail.matrix("lm_head.weight", {config.vocab_size, config.hidden_size});
    place_frequencies(be);
  }

  const llama_config& config() const { return config_; }
  /// Layer `i` of a model that is in memory as a whole.
  const decoder_layer<B>& layer(index i) const { return layers_[static_cast<std::size_t>(i)]; }
  layer_bytes bytes_of_layer(index i) const {
    if (stream_) return stream_->layout().bytes_of_layer(i);
    return {layer(i).attention_weight_bytes(), layer(i).neuron_bytes()};
  }
  /// Bytes of weights read from the file so far, under a memory limit.
  std::uint64_t streamed_weight_bytes() const { return stream_ ? stream_->streamed() : 0; }
  /// Most bytes of weights that were held at once.
  std::uint64_t held_weight_bytes() const {
    if (stream_) return stream_->peak();
    std::uint64_t sum = head_weight_bytes();
    if (!config_.tie_word_embeddings) sum += stored_bytes(embedding_.view);
    for (const decoder_layer<B>& l : layers_)
      sum += l.attention_weight_bytes() + l.neuron_bytes() * static_cast<std::uint64_t>(l.neurons());
    return sum;
  }
  std::uint64_t head_weight_bytes() const { return stored_bytes(head_.view); }
  dtype weight_type() const { return head_.view.type; }

  /// Positions that a sequence may use.
  index context() const { return config_.context(); }

  /// An empty sequence that sets aside cache rows for `headroom` tokens beyond each prompt and stores keys
  /// and values as `cache_type`: f32, f16 or bf16.
  sequence<B> start(B& be, index headroom, dtype cache_type = dtype::f32) const {
    const decoder_shape shape = shape_of(config_);
    const auto streamed = static_cast<std::size_t>(stream_ ? config_.layers : 0);
    return {kv_cache<B>(config_.layers, shape.attention.kv_size(), headroom, cache_type),
            scratch<B>(be, shape, 1, 1),
            matrix<B>(be, 1, config_.hidden_size),
            matrix<B>(be, 1, config_.vocab_size),
            be.template allocate<std::int32_t>(2),
            std::vector<std::shared_ptr<const decoder_layer<B>>>(streamed)};
  }

  /// x[i] = embedding of ids[i]; x [T, D]. Throws `error` for an id outside the vocabulary.
  void embed(B& be, view x, std::span<const std::int32_t> ids) const {
    config_.require_known(ids);
    if (streams_embedding()) return stream_->embed(be, x, ids);
    be.embed(x, embedding_.view, device_indices(be, {ids.data(), std::ssize(ids)}).view());
  }

  /// Runs the prompt's embeddings x [T, D] (lost) through all layers, behind whatever the sequence holds, and
  /// returns the logits [vocabulary] after its last token. `ffn_rows` bounds the rows whose FFN activations
  /// exist at a time. The hook may drop tokens. After an exception the sequence
  /// holds a part of the prompt and is of no further use.
  template <hook_of<B> H = no_hook>
  std::vector<float> prefill(B& be, sequence<B>& seq, view x, index ffn_rows, H&& hook = {}) const {
    require(x.rows > 0, "the prompt is empty");
    require_room(seq, x.rows);
    scratch<B> s(be, shape_of(config_), x.rows, ffn_rows);
    drop_subsets(seq);
    alive_tokens alive(be, x.rows, seq.next_position);
    for (index i = 0; i < config_.layers; ++i) {
      layer_context<B> at{be, i, {alive.original.data(), x.rows}, seq.cache[i]};
      const token_selection kept =
          prompt_layer(be, i).forward(at, s, x, alive.device_view(), frequencies_.view(), hook);
      keep_subset(seq, at, hook);
      if (kept.rows) x = drop_others(be, seq, x, alive, kept, i);
    }
    seq.next_position = alive.renumbered ? alive.rotary.back() + 1 : alive.end;
    compute_logits(be, seq, x.middle_rows(x.rows - 1, 1));
    return logits_of(be, seq);
  }

  /// One step: runs token `id` and returns the logits [vocabulary] after it.
  template <hook_of<B> H = no_hook>
  std::vector<float> decode(B& be, sequence<B>& seq, std::int32_t id, H&& hook = {}) const {
    step(be, seq, id, hook);
    return logits_of(be, seq);
  }

  /// The same, but the logits stay where they are computed, in seq.logits.
  template <hook_of<B> H = no_hook>
  void step(B& be, sequence<B>& seq, std::int32_t id, H&& hook = {}) const {
    require_room(seq, 1);
    config_.require_known({&id, 1});
    const std::int32_t input[] = {id, seq.next_position};
    be.upload(seq.input.view(), {input, 2});
    const auto layers = [&](auto& by) { run_layers(be, seq, id, by); };
    if (stream_)
      layers(hook);
    else
      seq.steps.run(be, seq.cache, {number_, seq.next_position, seq.device_position()}, hook, layers);
    ++seq.next_position;
  }

 private:
  using alive_tokens = detail::alive_tokens<B>;

  // From the id and position in seq.input to the logits.
  template <class H>
  void run_layers(B& be, sequence<B>& seq, std::int32_t id, H& hook) const {
    const view x = seq.hidden.view();
    if (streams_embedding())
      stream_->embed(be, x, {&id, 1});
    else
      be.embed(x, embedding_.view, seq.device_id());
    for (index i = 0; i < config_.layers; ++i) {
      layer_context<B> at{be, i, {&seq.next_position, 1}, seq.cache[i]};
      answering_layer(be, seq, i)
          .forward(at, seq.one_token, x, seq.device_position(), frequencies_.view(), hook);
    }
    compute_logits(be, seq, x);
  }

  bool streams_embedding() const { return stream_ && !config_.tie_word_embeddings; }

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

  void place_frequencies(B& be) {
    const std::vector<float> frequencies = rotary_frequencies(config_.rope, config_.head_dim);
    frequencies_ = be.template allocate<float>(std::ssize(frequencies));
    be.upload(frequencies_.view(), {frequencies.data(), std::ssize(frequencies)});
  }

  const decoder_layer<B>& prompt_layer(B& be, index i) const {
    if (!stream_) return layer(i);
    return stream_->layer(be, i, i + 1 < config_.layers ? std::optional(i + 1) : std::nullopt);
  }

  const decoder_layer<B>& answering_layer(B& be, const sequence<B>& seq, index i) const {
    if (!stream_) return layer(i);
    const auto subset = [&](index j) { return seq.subsets[static_cast<std::size_t>(j)].get(); };
    if (subset(i) != nullptr) return *subset(i);
    // The layer to be read next; behind the last of them, the first of the next token.
    index next = i + 1;
    while (subset(next % config_.layers) != nullptr) ++next;
    return stream_->layer(be, i, next % config_.layers);
  }

  // A prompt needs all neurons, and the room that those of an earlier one take.
  void drop_subsets(sequence<B>& seq) const {
    if (!stream_) return;
    for (auto& subset : seq.subsets) subset = nullptr;
    stream_->release_buffers();
  }

  template <class H>
  void keep_subset(sequence<B>& seq, const layer_context<B>& at, [[maybe_unused]] H& hook) const {
    if (!stream_) return;
    neuron_selection<space> neurons;
    if constexpr (attends<H, site::decode_neurons>) neurons = hook(site::decode_neurons{}, at);
    seq.subsets[static_cast<std::size_t>(at.layer)] = stream_->keep(at.be, at.layer, neurons);
    const bool is_last = at.layer + 1 == config_.layers;
    if (is_last && std::ranges::count(seq.subsets, nullptr) == 0) stream_->release_buffers();
  }

  // Shrinks everything that has one entry per token to the rows that the hook keeps after layer `done`.
  view drop_others(B& be, sequence<B>& seq, view x, alive_tokens& alive, const token_selection& kept,
                   index done) const {
    require(alive.end <= config_.context_when_dropping(), "tokens of a prompt that ends at ", alive.end,
            " are dropped, which a sliding window of ", config_.context_when_dropping(), " does not allow");
    const index_view<> rows = *kept.rows;
    require(!kept.renumber || kept.scope == cache_scope::every_layer,
            "a hook renumbers tokens whose cache entries stay in some layers");
    auto device_rows = device_indices(be, rows);
    be.gather_rows(x.top_rows(rows.size), x, device_rows.view());
    if (kept.scope == cache_scope::every_layer)
      for (index i = 0; i <= done; ++i) seq.cache[i].compact(be, x.rows, device_rows.view());
    for (index i = 0; i < rows.size; ++i) {
      const auto from = static_cast<std::size_t>(rows[i]), to = static_cast<std::size_t>(i);
      alive.original[to] = alive.original[from];
      alive.rotary[to] = alive.rotary[from];
    }
    alive.original.resize(static_cast<std::size_t>(rows.size));
    alive.rotary.resize(static_cast<std::size_t>(rows.size));
    if (kept.renumber) renumber(be, seq, alive, done);
    alive.place(be);
    return x.top_rows(rows.size);
  }

  // Survivors move to the positions first, first + 1, ...; rotation is additive, so cached keys turn by the
  // rest.
  void renumber(B& be, sequence<B>& seq, alive_tokens& alive, index done) const {
    std::vector<std::int32_t> turn(alive.rotary.size());
    for (std::size_t i = 0; i < turn.size(); ++i) {
      const auto position = alive.first + static_cast<std::int32_t>(i);
      turn[i] = position - std::exchange(alive.rotary[i], position);
    }
    const auto rows = std::ssize(turn);
    const auto placed = device_indices(be, {turn.data(), rows});
    for (index i = 0; i <= done; ++i) {
      const auto cached = seq.cache[i].keys();
      const auto last = cached.middle_rows(cached.rows - rows, rows);
      matrix<B> keys(be, rows, last.cols);
      be.load_rows(keys.view(), last);
      be.rotary(keys.view(), placed.view(), frequencies_.view(), config_.kv_heads);
      be.store_rows(last, keys.view());
    }
    alive.renumbered = true;
  }

  void compute_logits(B& be, sequence<B>& seq, view last) const {
    const view normed = seq.one_token.normed(1);
    be.rms_norm(normed, last, norm_.view(), static_cast<float>(config_.rms_norm_eps));
    be.matmul(seq.logits.view(), normed, head_.view, {});
  }

  static std::vector<float> logits_of(B& be, sequence<B>& seq) {
    std::vector<float> logits;
    download_values(be, seq.logits.view(), logits);
    return logits;
  }

  std::uint64_t number_ = next_model_number();
  llama_config config_;
  weight<space> embedding_;
  std::vector<decoder_layer<B>> layers_;     // all of them, or none where there is a stream
  std::unique_ptr<layer_stream<B>> stream_;  // under a memory limit
  parameters<B> norm_;
  weight<space> head_;
  parameters<B> frequencies_;
};

}  // namespace corematching

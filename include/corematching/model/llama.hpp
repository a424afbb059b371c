// SPDX-License-Identifier: Apache-2.0
// A LLaMA-like language model: embedding, decoder layers, final norm, head. Weights are const and shared;
// what belongs to one conversation is a `sequence`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llama_config.hpp"
#include "corematching/model/rope.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/decoder_layer.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

inline decoder_shape shape_of(const llama_config& config) {
  const auto scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  return {config.hidden_size,
          config.intermediate_size,
          {config.heads, config.kv_heads, config.head_dim, scale, true}};
}

/// The state of one conversation on a model.
template <backend B>
struct sequence {
  kv_cache<B> cache;
  scratch<B> one_token;                                // intermediate activations of decoding
  matrix<B> hidden;                                    // [1, D]
  matrix<B> logits;                                    // [1, vocabulary]
  typename B::template buffer<std::int32_t> id;        // [1]
  typename B::template buffer<std::int32_t> position;  // [1]
  std::int32_t next_position = 0;
};

/// All weights of a model, in the backend's memory.
template <backend B>
struct llama_weights {
  using matrix_weight = weight<typename B::space>;
  matrix_weight embedding;                 // [vocabulary, D]
  std::vector<decoder_weights<B>> layers;  // one per decoder layer
  parameters<B> norm;                      // [D]
  matrix_weight head;                      // [vocabulary, D]; the embedding again where both are tied
};

template <backend B>
class llama {
 public:
  using space = typename B::space;
  using view = matrix_view<typename B::value_type, space>;

  /// Loads the model from `from`; `config` must describe it. Throws `error` for tensors that are missing or
  /// of another shape.
  llama(B& be, const llama_config& config, weight_reader<B>& reader)
      : llama(be, config, read_weights(config, reader)) {}

  /// A model of weights that are in memory already; their shapes must be those of `config`.
  llama(B& be, const llama_config& config, llama_weights<B> weights)
      : config_(config),
        embedding_(std::move(weights.embedding)),
        norm_(std::move(weights.norm)),
        head_(std::move(weights.head)) {
    require(std::ssize(weights.layers) == config.layers, "weights of ", weights.layers.size(),
            " layers for a model of ", config.layers);
    for (decoder_weights<B>& layer : weights.layers)
      layers_.emplace_back(std::move(layer), shape_of(config).attention, config.hidden_act,
                           static_cast<float>(config.rms_norm_eps));
    const std::vector<float> frequencies = rotary_frequencies(config.rope, config.head_dim);
    frequencies_ = be.template allocate<float>(std::ssize(frequencies));
    be.upload(frequencies_.view(), {frequencies.data(), std::ssize(frequencies)});
  }

  const llama_config& config() const { return config_; }
  const decoder_layer<B>& layer(index i) const { return layers_[static_cast<std::size_t>(i)]; }
  std::uint64_t head_weight_bytes() const { return stored_bytes(head_.view); }
  dtype weight_type() const { return embedding_.view.type; }

  /// Positions that a sequence may use. A window of attention is not implemented, so a model that has one is
  /// used up to its length, where both are the same.
  index context() const {
    return std::min(config_.max_positions, config_.sliding_window.value_or(config_.max_positions));
  }

  /// An empty sequence that sets aside cache rows for `headroom` tokens beyond each prompt and stores keys
  /// and values as `cache_type`: f32, f16 or bf16.
  sequence<B> start(B& be, index headroom, dtype cache_type = dtype_of<typename B::value_type>) const {
    const decoder_shape shape = shape_of(config_);
    return {kv_cache<B>(config_.layers, shape.attention.kv_size(), headroom, cache_type),
            scratch<B>(be, shape, 1, 1),
            matrix<B>(be, 1, config_.hidden_size),
            matrix<B>(be, 1, config_.vocab_size),
            be.template allocate<std::int32_t>(1),
            be.template allocate<std::int32_t>(1)};
  }

  /// x[i] = embedding of ids[i]; x [T, D]. Throws `error` for an id outside the vocabulary.
  void embed(B& be, view x, std::span<const std::int32_t> ids) const {
    for (const std::int32_t id : ids)
      require(id >= 0 && id < config_.vocab_size, "token id ", id, " lies outside the vocabulary of ",
              config_.vocab_size);
    be.embed(x, embedding_.view, placed_indices(be, {ids.data(), std::ssize(ids)}).view());
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
    alive_tokens alive(be, x.rows, seq.next_position);
    for (index i = 0; i < config_.layers; ++i) {
      layer_context<B> at{be, i, {alive.original.data(), x.rows}, seq.cache[i]};
      const token_selection kept = layer(i).forward(at, s, x, alive.placed_view(), frequencies_.view(), hook);
      if (kept.rows) x = drop_others(be, seq, x, alive, kept, i);
    }
    seq.next_position = alive.renumbered ? alive.rotary.back() + 1 : alive.end;
    return logits_of(be, seq, x.middle_rows(x.rows - 1, 1));
  }

  /// One step: runs token `id` and returns the logits [vocabulary] after it.
  template <hook_of<B> H = no_hook>
  std::vector<float> decode(B& be, sequence<B>& seq, std::int32_t id, H&& hook = {}) const {
    require_room(seq, 1);
    require(id >= 0 && id < config_.vocab_size, "token id ", id, " lies outside the vocabulary of ",
            config_.vocab_size);
    const view x = seq.hidden.view();
    be.upload(seq.id.view(), {&id, 1});
    be.upload(seq.position.view(), {&seq.next_position, 1});
    be.embed(x, embedding_.view, seq.id.view());
    for (index i = 0; i < config_.layers; ++i) {
      layer_context<B> at{be, i, {&seq.next_position, 1}, seq.cache[i]};
      layer(i).forward(at, seq.one_token, x, seq.position.view(), frequencies_.view(), hook);
    }
    ++seq.next_position;
    return logits_of(be, seq, x);
  }

 private:
  // Tokens of a prompt that are still alive: their positions in the prompt, and those they are rotated by.
  struct alive_tokens {
    alive_tokens(B& be, index tokens, std::int32_t start)
        : original(static_cast<std::size_t>(tokens)),
          placed(be.template allocate<std::int32_t>(tokens)),
          first(start),
          end(start + static_cast<std::int32_t>(tokens)) {
      std::iota(original.begin(), original.end(), start);
      rotary = original;
      place(be);
    }
    void place(B& be) { be.upload(placed_view(), {rotary.data(), std::ssize(rotary)}); }
    vector_view<std::int32_t, space> placed_view() { return {placed.data(), std::ssize(rotary)}; }

    std::vector<std::int32_t> original;
    std::vector<std::int32_t> rotary;
    typename B::template buffer<std::int32_t> placed;  // rotary, in the backend's memory
    std::int32_t first;
    std::int32_t end;
    bool renumbered = false;
  };

  void require_room(const sequence<B>& seq, index tokens) const {
    require(seq.next_position + tokens <= context(), tokens, " tokens behind position ", seq.next_position,
            " do not fit the model's context of ", context(), " tokens");
  }

  static llama_weights<B> read_weights(const llama_config& config, weight_reader<B>& reader) {
    require(!config.mlp_bias, "config.json: mlp_bias: feed-forward blocks with bias are not supported");
    const std::string prefix =
        reader.prefix({"language_model.model.", "model.language_model.", "model."}, "embed_tokens.weight");
    llama_weights<B> w;
    w.embedding = reader.matrix(prefix + "embed_tokens.weight", {config.vocab_size, config.hidden_size});
    for (index i = 0; i < config.layers; ++i)
      w.layers.push_back(read_layer(config, reader, prefix + "layers." + std::to_string(i) + "."));
    w.norm = reader.vector(prefix + "norm.weight", config.hidden_size);
    const std::string head = reader.prefix({"language_model.", ""}, "lm_head.weight") + "lm_head.weight";
    w.head = config.tie_word_embeddings ? w.embedding
                                        : reader.matrix(head, {config.vocab_size, config.hidden_size});
    return w;
  }

  static decoder_weights<B> read_layer(const llama_config& config, weight_reader<B>& reader,
                                       const std::string& prefix) {
    const index d = config.hidden_size, n = config.intermediate_size;
    const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    decoder_weights<B> w;
    w.attention_norm = reader.vector(prefix + "input_layernorm.weight", d);
    w.ffn_norm = reader.vector(prefix + "post_attention_layernorm.weight", d);
    w.query = reader.matrix(attention + "q_proj.weight", {q, d});
    w.key = reader.matrix(attention + "k_proj.weight", {kv, d});
    w.value = reader.matrix(attention + "v_proj.weight", {kv, d});
    w.output = reader.matrix(attention + "o_proj.weight", {d, q});
    w.query_bias = reader.vector_if(config.qkv_bias, attention + "q_proj.bias", q);
    w.key_bias = reader.vector_if(config.qkv_bias, attention + "k_proj.bias", kv);
    w.value_bias = reader.vector_if(config.qkv_bias, attention + "v_proj.bias", kv);
    w.output_bias = reader.vector_if(config.o_bias, attention + "o_proj.bias", d);
    w.gate = reader.matrix(mlp + "gate_proj.weight", {n, d});
    w.up = reader.matrix(mlp + "up_proj.weight", {n, d});
    w.down_transposed = reader.transposed(mlp + "down_proj.weight", d, n);
    return w;
  }

  // Shrinks everything that has one entry per token to the rows that the hook keeps after layer `done`.
  view drop_others(B& be, sequence<B>& seq, view x, alive_tokens& alive, const token_selection& kept,
                   index done) const {
    const index_view<> rows = *kept.rows;
    require(!kept.renumber || kept.scope == cache_scope::every_layer,
            "a hook renumbers tokens whose cache entries stay in some layers");
    auto placed_rows = placed_indices(be, rows);
    be.gather_rows(x.top_rows(rows.size), x, placed_rows.view());
    if (kept.scope == cache_scope::every_layer)
      for (index i = 0; i <= done; ++i) seq.cache[i].keep(be, x.rows, placed_rows.view());
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
    const auto placed = placed_indices(be, {turn.data(), rows});
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

  std::vector<float> logits_of(B& be, sequence<B>& seq, view last) const {
    const view normed = seq.one_token.normed(1);
    be.rms_norm(normed, last, norm_.view(), static_cast<float>(config_.rms_norm_eps));
    be.matmul(seq.logits.view(), normed, head_.view, {});
    std::vector<float> logits;
    logits.reserve(static_cast<std::size_t>(config_.vocab_size));
    download_values(be, seq.logits.view(), logits);
    return logits;
  }

  llama_config config_;
  weight<space> embedding_;
  std::vector<decoder_layer<B>> layers_;
  parameters<B> norm_;
  weight<space> head_;
  parameters<B> frequencies_;
};

}  // namespace corematching

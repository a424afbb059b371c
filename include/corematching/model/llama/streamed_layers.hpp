// SPDX-License-Identifier: Apache-2.0
// A model that never holds more than a limit of its weights, which are those of a packed file;
// layer_stream.hpp says what counts. It answers as the whole model does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "corematching/model/llama/layer_source.hpp"
#include "corematching/model/llama/layer_stream.hpp"
#include "corematching/model/llama/llama.hpp"

namespace corematching {

template <backend B>
class streamed_layers final : public layer_source<B> {
 public:
  using typename layer_source<B>::space;
  using typename layer_source<B>::view;
  using typename layer_source<B>::ask_neurons;

  /// Throws `error` where `limit` bytes are too few for one layer and for what is always in memory.
  streamed_layers(B& be, const packed_file& file, const llama_config& config, std::uint64_t limit)
      : layers_(config.layers), stream_(file, config, limit) {
    const auto read = [&](byte_range range) {
      auto memory = stream_.load(be, range);
      return packed_reader<B>(be, stream_.layout(), memory.get(), memory, range.first);
    };
    packed_reader<B> tail = read(stream_.layout().tail());
    outer_.norm = tail.vector("model.norm.weight", config.hidden_size);
    if (config.tie_word_embeddings)
      outer_.embedding = outer_.head =
          read(stream_.layout().embedding())
              .matrix("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    else
      outer_.head = tail.matrix("lm_head.weight", {config.vocab_size, config.hidden_size});
  }

  const outer_weights<B>& outer() const override { return outer_; }
  void embed(B& be, view x, std::span<const std::int32_t> ids, index_view<space> placed) override {
    if (!outer_.tied()) return stream_.embed(be, x, ids);
    be.embed(x, outer_.embedding.view, placed);
  }

  /// A prompt needs all neurons, and the room that those of an earlier one take.
  void begin_prompt(layer_subsets<B>& subsets) override {
    std::ranges::fill(subsets, nullptr);
    stream_.release_buffers();
  }
  const decoder_layer<B>& prompt_layer(B& be, index i) override {
    return stream_.layer(be, i, i + 1 < layers_ ? std::optional(i + 1) : std::nullopt);
  }
  void end_prompt_layer(B& be, index i, layer_subsets<B>& subsets, const ask_neurons& neurons) override {
    subsets[static_cast<std::size_t>(i)] = stream_.keep(be, i, neurons());
    if (i + 1 == layers_ && std::ranges::count(subsets, nullptr) == 0) stream_.release_buffers();
  }
  const decoder_layer<B>& decoding_layer(B& be, index i, const layer_subsets<B>& subsets) override {
    const auto subset = [&](index j) { return subsets[static_cast<std::size_t>(j)].get(); };
    if (subset(i) != nullptr) return *subset(i);
    // The layer to be read next; behind the last of them, the first of the next token.
    index next = i + 1;
    while (subset(next % layers_) != nullptr) ++next;
    return stream_.layer(be, i, next % layers_);
  }

  bool stays_in_place() const override { return false; }
  layer_bytes bytes_of_layer(index i) const override { return stream_.layout().bytes_of_layer(i); }
  std::uint64_t held_bytes() const override { return stream_.peak(); }
  std::uint64_t streamed_bytes() const override { return stream_.streamed(); }

 private:
  index layers_;
  outer_weights<B> outer_;
  layer_stream<B> stream_;
};

/// A model of the weights of `file` that never holds more than `memory_limit` bytes of them. Throws `error`
/// where that is too little.
template <backend B>
llama<B> streamed_llama(B& be, const llama_config& config, const packed_file& file,
                        std::uint64_t memory_limit) {
  return {be, config, std::make_unique<streamed_layers<B>>(be, file, config, memory_limit)};
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// A model whose weights are in memory as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "corematching/model/llama/layer_source.hpp"
#include "corematching/model/llama/weights.hpp"

namespace corematching {

template <backend B>
class resident_layers final : public layer_source<B> {
 public:
  using typename layer_source<B>::space;
  using typename layer_source<B>::view;
  using typename layer_source<B>::ask_neurons;

  /// Throws `error` for weights of another number of layers than `config` says.
  resident_layers(const llama_config& config, llama_weights<B> weights)
      : outer_{std::move(weights.embedding), std::move(weights.norm), std::move(weights.head)} {
    require(std::ssize(weights.layers) == config.layers, "weights of ", weights.layers.size(),
            " layers for a model of ", config.layers);
    for (decoder_weights<B>& layer : weights.layers) layers_.push_back(layer_of<B>(config, std::move(layer)));
  }

  const outer_weights<B>& outer() const override { return outer_; }
  void embed(B& be, view x, std::span<const std::int32_t>, index_view<space> placed) override {
    be.embed(x, outer_.embedding.view, placed);
  }

  void begin_prompt(layer_subsets<B>&) override {}
  const decoder_layer<B>& prompt_layer(B&, index i) override { return layer(i); }
  void end_prompt_layer(B&, index, layer_subsets<B>&, const ask_neurons&) override {}
  const decoder_layer<B>& decoding_layer(B&, index i, const layer_subsets<B>&) override { return layer(i); }

  bool stays_in_place() const override { return true; }
  layer_bytes bytes_of_layer(index i) const override {
    return {layer(i).attention_weight_bytes(), layer(i).neuron_bytes()};
  }
  std::uint64_t held_bytes() const override {
    std::uint64_t sum = stored_bytes(outer_.head.view);
    if (!outer_.tied()) sum += stored_bytes(outer_.embedding.view);
    for (const decoder_layer<B>& l : layers_)
      sum += l.attention_weight_bytes() + l.neuron_bytes() * static_cast<std::uint64_t>(l.neurons());
    return sum;
  }
  std::uint64_t streamed_bytes() const override { return 0; }

 private:
  const decoder_layer<B>& layer(index i) const { return layers_[static_cast<std::size_t>(i)]; }

  outer_weights<B> outer_;
  std::vector<decoder_layer<B>> layers_;
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Where the weights of a language model come from: they stand in memory (resident_layers.hpp), or they are
// read within a limit of memory (streamed_layers.hpp). A model asks for one layer at a time and knows no
// more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "corematching/model/llama/tensors.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// What a model computes with outside of its layers.
template <backend B>
struct outer_weights {
  using matrix_weight = weight<typename B::space>;
  matrix_weight embedding;  // [vocabulary, D]; empty where its rows are read as they are needed
  parameters<B> norm;       // [D]
  matrix_weight head;       // [vocabulary, D]

  /// Whether embedding and head are one matrix.
  bool tied() const { return head.view.data == embedding.view.data; }
};

/// A sequence's own layers, one for each of the model or null: copies with no other neurons than those that
/// its answer needs.
template <backend B>
using layer_subsets = std::vector<std::shared_ptr<const decoder_layer<B>>>;

template <backend B>
class layer_source {
 public:
  using space = typename B::space;
  using view = matrix_view<float, space>;
  using ask_neurons = std::function<neuron_selection<space>()>;

  virtual ~layer_source() = default;

  virtual const outer_weights<B>& outer() const = 0;
  /// x[i] = embedding of ids[i]; `placed` are the ids in the backend's memory.
  virtual void embed(B& be, view x, std::span<const std::int32_t> ids, index_view<space> placed) = 0;

  /// A sequence with these subsets is about to see a prompt.
  virtual void begin_prompt(layer_subsets<B>& subsets) = 0;
  /// Layer `i` with all of its neurons. A layer is valid until the next one is asked for.
  virtual const decoder_layer<B>& prompt_layer(B& be, index i) = 0;
  /// Layer `i`, asked for last, has seen the prompt; `neurons` says which of it decoding will compute.
  virtual void end_prompt_layer(B& be, index i, layer_subsets<B>& subsets, const ask_neurons& neurons) = 0;
  /// Layer `i` for a step of decoding: with all of its neurons, or with those that `neurons` said.
  virtual const decoder_layer<B>& decoding_layer(B& be, index i, const layer_subsets<B>& subsets) = 0;

  /// Whether every step finds all weights at the same place, so that steps can be captured.
  virtual bool stays_in_place() const = 0;
  virtual layer_bytes bytes_of_layer(index i) const = 0;
  /// Most bytes of weights that were held at once.
  virtual std::uint64_t held_bytes() const = 0;
  /// Bytes of weights that were read from a file while the model ran.
  virtual std::uint64_t streamed_bytes() const = 0;
};

}  // namespace corematching

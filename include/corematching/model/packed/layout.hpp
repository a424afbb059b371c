// SPDX-License-Identifier: Apache-2.0
// How a packed file lays out a language model: a safetensors file whose tensors are already what the backend
// computes with, ordered as they are used. It follows from the configuration and the types of the weights
// alone, so a file is right if it equals what is computed here.
//
//   model.embed_tokens.weight | layer 0 | layer 1 | ... | model.norm.weight | lm_head.weight
//
// A layer begins at a multiple of 4096 bytes, every tensor at a multiple of 64; tensors named padding.K fill
// the gaps. Names are those of transformers. down_proj is transposed, [N, D]; rows of the block formats, and
// of planes, are U8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/io/safetensors_header.hpp"
#include "corematching/io/tensor.hpp"
#include "corematching/model/llama/tensors.hpp"

namespace corematching {

inline constexpr std::uint64_t packed_tensor_alignment = 64;
inline constexpr std::uint64_t packed_layer_alignment = 4096;

/// One tensor of a packed file.
struct packed_tensor {
  io::tensor_entry entry;
  std::optional<tensor_kind> kind;  // nothing: padding
  dtype type = dtype::f32;
  index rows = 0;  // as checkpoints store it
  index cols = 0;

  bool is_padding() const { return !kind; }

  /// Whether it has one row for each neuron.
  bool is_per_neuron() const { return entry.name.find(".mlp.") != std::string::npos; }
};

/// Bytes first..last of the data of a file.
struct byte_range {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::uint64_t size() const { return last - first; }
};

class packed_layout {
 public:
  /// Says as what a matrix is stored.
  using matrix_types = std::function<dtype(const tensor_description&)>;

  /// All matrices in one type; of two planes are those of neurons alone.
  packed_layout(const llama_config& config, dtype weights)
      : packed_layout(config, [weights](const tensor_description& t) {
          return t.kind == tensor_kind::neuron_matrix ? weights : whole_of(weights);
        }) {}
  packed_layout(const llama_config& config, const matrix_types& types) {
    const auto place = [&](const tensor_description& t) {
      add(t, t.kind == tensor_kind::vector ? dtype::f32 : types(t));
    };
    place({tensor_kind::matrix, "model.embed_tokens.weight", config.vocab_size, config.hidden_size});
    embedding_ = range_of(tensors_.back());
    for (index i = 0; i < config.layers; ++i) {
      pad(packed_layer_alignment);
      const std::uint64_t first = size();
      const std::size_t first_tensor = tensors_.size();
      visit_layer(config, layer_prefix("model.", i), [&](const tensor_description& t, auto) { place(t); });
      layers_.push_back({first, size()});
      tensors_of_.push_back({first_tensor, tensors_.size()});
    }
    pad(packed_layer_alignment);
    place({tensor_kind::vector, "model.norm.weight", 1, config.hidden_size});
    if (!config.tie_word_embeddings)
      place({tensor_kind::matrix, "lm_head.weight", config.vocab_size, config.hidden_size});
    for (const packed_tensor& t : tensors_) by_name_.emplace(t.entry.name, &t - tensors_.data());
  }

  dtype embedding_type() const { return tensors_.front().type; }
  /// In the order of their data.
  const std::vector<packed_tensor>& tensors() const { return tensors_; }
  byte_range embedding() const { return embedding_; }
  byte_range layer(index i) const { return layers_[static_cast<std::size_t>(i)]; }
  std::span<const packed_tensor> tensors_of(index layer) const {
    const auto [first, last] = tensors_of_[static_cast<std::size_t>(layer)];
    return std::span(tensors_).subspan(first, last - first);
  }
  layer_bytes bytes_of_layer(index i) const {
    layer_bytes sum;
    for (const packed_tensor& t : tensors_of(i)) {
      if (t.is_padding() || t.kind == tensor_kind::vector) continue;
      const std::uint64_t size = t.entry.end - t.entry.begin;
      if (t.is_per_neuron()) {
        sum.neuron += size / static_cast<std::uint64_t>(t.entry.shape.front());
      } else {
        sum.attention += size;
      }
    }
    return sum;
  }
  /// Final norm and head.
  byte_range tail() const { return {layers_.back().last, size()}; }
  std::uint64_t size() const { return tensors_.empty() ? 0 : tensors_.back().entry.end; }

  const packed_tensor& at(const std::string& name) const {
    return tensors_[static_cast<std::size_t>(by_name_.at(name))];
  }

 private:
  static byte_range range_of(const packed_tensor& t) { return {t.entry.begin, t.entry.end}; }

  void add(const tensor_description& t, dtype type) {
    pad(packed_tensor_alignment);
    const bool transposed = t.kind == tensor_kind::transposed, vector = t.kind == tensor_kind::vector;
    const index out = transposed ? t.cols : t.rows, in = transposed ? t.rows : t.cols;
    require(in % block_of(type) == 0, "tensor \"", t.name, "\" as ", name_of(type),
            ": needs rows of a multiple of ", block_of(type), " weights, not ", in);
    const auto row_bytes = static_cast<std::int64_t>(bytes_of(type, static_cast<std::size_t>(in)));
    const std::uint64_t begin = size(), end = begin + static_cast<std::uint64_t>(out * row_bytes);
    std::vector<std::int64_t> shape{out, is_element(type) ? in : row_bytes};
    if (vector) shape.erase(shape.begin());
    tensors_.push_back(
        {{t.name, io::stored_elements(type), std::move(shape), begin, end}, t.kind, type, t.rows, t.cols});
  }

  void pad(std::uint64_t alignment) {
    const std::uint64_t begin = size(), end = (begin + alignment - 1) / alignment * alignment;
    if (begin == end) return;
    const auto length = static_cast<std::int64_t>(end - begin);
    tensors_.push_back({{std::string("padding.").append(std::to_string(paddings_++)),
                         io::element_type::u8,
                         {length},
                         begin,
                         end},
                        std::nullopt,
                        dtype::f32,
                        1,
                        length});
  }

  int paddings_ = 0;
  std::vector<packed_tensor> tensors_;
  byte_range embedding_;
  std::vector<byte_range> layers_;
  std::vector<std::pair<std::size_t, std::size_t>> tensors_of_;  // of a layer: first and end
  std::map<std::string, index, std::less<>> by_name_;
};

}  // namespace corematching

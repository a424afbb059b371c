// SPDX-License-Identifier: Apache-2.0
// The tensors of a packed file as weights of a backend, used where they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Gives a model the tensors of a packed file, as weight_reader gives it those of a checkpoint, out of memory
/// that holds the file's data from byte `first` on.
template <backend B>
class packed_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  packed_reader(B& be, const packed_layout& layout, const std::byte* memory,
                std::shared_ptr<const void> owner, std::uint64_t first = 0)
      : be_(be), layout_(layout), memory_(memory), owner_(std::move(owner)), first_(first) {}
  packed_reader(B& be, const packed_file& file)
      : packed_reader(be, file.layout(), file.data().data(), file.owner()) {}

  std::string language_prefix() const { return "model."; }
  /// What was tied when the file was made is stored once.
  word_embeddings embeddings_of(const llama_config& config) const {
    const std::string embedding = "model.embed_tokens.weight";
    return {embedding, config.tie_word_embeddings ? embedding : "lm_head.weight", ""};
  }

  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t>) {
    const packed_tensor& t = layout_.at(name);
    return placed(t, t.rows, t.cols);
  }
  matrix_weight neuron_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return matrix(name, shape);
  }
  /// What was transposed when the file was made.
  matrix_weight transposed(const std::string& name, index rows, index cols) {
    return placed(layout_.at(name), cols, rows);
  }

  parameters<B> vector(const std::string& name, index size) {
    const packed_tensor& t = layout_.at(name);
    return be_.place_vector({reinterpret_cast<const float*>(bytes(t)), size});
  }

 private:
  const std::byte* bytes(const packed_tensor& t) const { return memory_ + (t.entry.begin - first_); }

  matrix_weight placed(const packed_tensor& t, index rows, index cols) {
    const dtype type = t.type;
    const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)));
    return be_.place_weight({{bytes(t), type, rows, cols, row_bytes}, owner_});
  }

  B& be_;
  const packed_layout& layout_;
  const std::byte* memory_;
  std::shared_ptr<const void> owner_;
  std::uint64_t first_;
};

}  // namespace corematching

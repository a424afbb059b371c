// SPDX-License-Identifier: Apache-2.0
// A decoder layer copied out of a packed file's data, whole or with some of its neurons, into memory of its
// own: rows that lie scattered in the file lie together in the copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "corematching/core/quantised.hpp"
#include "corematching/model/llama/weights.hpp"
#include "corematching/model/packed/reader.hpp"

namespace corematching {

namespace detail {

/// Bytes that a tensor takes in a copy with `neurons` neurons.
inline std::uint64_t subset_bytes(const packed_tensor& t, index neurons) {
  if (t.is_padding()) return 0;
  std::uint64_t size = t.entry.end - t.entry.begin;
  if (t.is_per_neuron())
    size = size / static_cast<std::uint64_t>(t.entry.shape.front()) * static_cast<std::uint64_t>(neurons);
  return (size + packed_tensor_alignment - 1) / packed_tensor_alignment * packed_tensor_alignment;
}

/// Reads a layer as packed_reader does, but every matrix from a copy of the rows that are wanted.
template <backend B>
class subset_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  /// `neurons` ascending; nothing means all. `memory` has room for the copies.
  subset_reader(B& be, packed_reader<B> vectors, const packed_layout& layout, const std::byte* from,
                std::uint64_t first, std::optional<std::span<const std::int32_t>> neurons,
                std::shared_ptr<std::byte> memory)
      : be_(be),
        vectors_(std::move(vectors)),
        layout_(layout),
        from_(from),
        first_(first),
        neurons_(neurons),
        memory_(std::move(memory)) {}

  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t>) {
    const packed_tensor& t = layout_.at(name);
    return copied(t, t.rows, t.cols);
  }
  matrix_weight neuron_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return matrix(name, shape);
  }
  matrix_weight transposed(const std::string& name, index rows, index cols) {
    return copied(layout_.at(name), cols, rows);
  }
  parameters<B> vector(const std::string& name, index size) { return vectors_.vector(name, size); }

 private:
  matrix_weight copied(const packed_tensor& t, index rows, index cols) {
    const dtype type = t.type;
    const std::size_t row_bytes = bytes_of(type, static_cast<std::size_t>(cols));
    const std::byte* const from = from_ + (t.entry.begin - first_);
    std::byte* const to = memory_.get() + used_;
    if (t.is_per_neuron() && neurons_) {
      copy_weight_rows(type, from, rows, cols, {neurons_->data(), std::ssize(*neurons_)}, to);
      rows = std::ssize(*neurons_);
    } else {
      std::memcpy(to, from, static_cast<std::size_t>(rows) * row_bytes);
    }
    used_ += subset_bytes(t, rows);  // of a matrix without neurons, whatever `rows` is
    return be_.place_weight({{to, type, rows, cols, static_cast<index>(row_bytes)}, memory_});
  }

  B& be_;
  packed_reader<B> vectors_;
  const packed_layout& layout_;
  const std::byte* from_;
  std::uint64_t first_;
  std::optional<std::span<const std::int32_t>> neurons_;
  std::shared_ptr<std::byte> memory_;
  std::uint64_t used_ = 0;
};

}  // namespace detail
}  // namespace corematching

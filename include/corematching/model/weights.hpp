// SPDX-License-Identifier: Apache-2.0
// From tensors of a checkpoint to weights of a backend. Matrices stay in the file's mapping wherever the
// backend can read them there; a shape that does not fit is an error that names file, tensor and both shapes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Called while a model is loaded, with the bytes of the tensors read so far.
using load_progress = std::function<void(std::uint64_t done)>;

namespace detail {

/// to[c][r] = from[r][c] for elements of type `Word`, in blocks that stay in the cache.
template <class Word>
void transpose(const std::byte* from, std::byte* to, index rows, index cols) {
  constexpr index block = 64;
  const auto element = [](const std::byte* base, index i) { return base + i * index{sizeof(Word)}; };
  for (index r0 = 0; r0 < rows; r0 += block)
    for (index c0 = 0; c0 < cols; c0 += block)
      for (index c = c0; c < std::min(cols, c0 + block); ++c)
        for (index r = r0; r < std::min(rows, r0 + block); ++r)
          std::memcpy(to + (c * rows + r) * index{sizeof(Word)}, element(from, r * cols + c), sizeof(Word));
}

/// Bytes on the heap, aligned to a cache line.
inline std::shared_ptr<std::byte> heap_block(std::size_t bytes) {
  constexpr std::align_val_t alignment{64};
  return {static_cast<std::byte*>(::operator new(bytes, alignment)),
          [](std::byte* block) { ::operator delete(block, alignment); }};
}

}  // namespace detail

template <backend B>
class weight_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  weight_reader(B& be, const io::checkpoint& from, load_progress progress = {})
      : be_(be), from_(from), progress_(std::move(progress)) {}

  /// The first of `candidates` under which the checkpoint has a tensor `candidate + probe`; the last of them
  /// if none has, so that the error about the missing tensor names it.
  std::string prefix(std::initializer_list<std::string_view> candidates, std::string_view probe) const {
    std::string found;
    for (const std::string_view candidate : candidates) {
      found = candidate;
      if (from_.contains(found + std::string(probe))) break;
    }
    return found;
  }

  bool has(const std::string& name) const { return from_.contains(name); }

  /// A tensor whose elements, row by row, are a [rows, cols] matrix; `shape` is what the file must say.
  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    const io::tensor& tensor = checked(name, shape);
    const index rows = static_cast<index>(*shape.begin());
    const index cols = elements(tensor) / rows;
    weight<host_space> host{{tensor.bytes.data(), weight_dtype(tensor), rows, cols, 0}, tensor.storage};
    host.view.row_bytes = static_cast<index>(bytes_of(host.view.type, static_cast<std::size_t>(cols)));
    if (!tensor.is_aligned()) {
      auto copy = detail::heap_block(tensor.bytes.size());
      std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
      host.view.data = copy.get();
      host.owner = std::move(copy);
    }
    return placed(tensor, std::move(host));
  }

  /// The transposed of a tensor [rows, cols]: a matrix [cols, rows].
  matrix_weight transposed(const std::string& name, index rows, index cols) {
    const io::tensor& tensor = checked(name, {rows, cols});
    const dtype type = weight_dtype(tensor);
    auto block = detail::heap_block(tensor.bytes.size());
    if (type != dtype::f32) {
      detail::transpose<std::uint16_t>(tensor.bytes.data(), block.get(), rows, cols);
    } else {
      detail::transpose<std::uint32_t>(tensor.bytes.data(), block.get(), rows, cols);
    }
    const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(rows)));
    const weight_view<> view{block.get(), type, cols, rows, row_bytes};
    return placed(tensor, {view, std::move(block)});
  }

  /// All elements of a tensor as binary32 in host memory.
  std::vector<float> values(const std::string& name, std::initializer_list<std::int64_t> shape) {
    const io::tensor& tensor = checked(name, shape);
    std::vector<float> result(static_cast<std::size_t>(elements(tensor)));
    visit_dtype(weight_dtype(tensor), [&]<class T>(const T*) {
      if constexpr (!block_format<T>) {
        for (std::size_t i = 0; i < result.size(); ++i) {
          T stored;
          std::memcpy(&stored, tensor.bytes.data() + i * sizeof(T), sizeof(T));
          result[i] = to_float(stored);
        }
      }
    });
    report(tensor);
    return result;
  }

  /// A vector of `size` parameters.
  parameters<B> vector(const std::string& name, index size) {
    const std::vector<float> host = values(name, {size});
    auto buffer = be_.template allocate<float>(size);
    be_.upload(buffer.view(), {host.data(), size});
    return buffer;
  }

  /// The same where `wanted`, otherwise nothing.
  parameters<B> vector_if(bool wanted, const std::string& name, index size) {
    return wanted ? vector(name, size) : parameters<B>();
  }

 private:
  static index elements(const io::tensor& tensor) {
    return static_cast<index>(tensor.bytes.size() / io::size_of(tensor.type));
  }

  const io::tensor& checked(const std::string& name, std::initializer_list<std::int64_t> shape) const {
    const io::tensor& tensor = from_.at(name);
    require(std::ranges::equal(tensor.shape, shape), tensor.file.string(), ": tensor \"", name,
            "\" has shape ", io::shape_text(tensor.shape), ", but config.json asks for ",
            io::shape_text(std::vector<std::int64_t>(shape)));
    static_cast<void>(weight_dtype(tensor));
    return tensor;
  }

  matrix_weight placed(const io::tensor& tensor, weight<host_space> host) {
    report(tensor);
    return be_.place_weight(std::move(host));
  }

  void report(const io::tensor& tensor) {
    done_ += tensor.bytes.size();
    if (progress_) progress_(done_);
  }

  B& be_;
  const io::checkpoint& from_;
  load_progress progress_;
  std::uint64_t done_ = 0;
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// The tensors of an mmproj file as weights of a backend: numbers stay where they are mapped, blocks become
// the binary32 numbers that they stand for, one tensor at a time, or all are converted to the type that is
// asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/tensor.hpp"
#include "corematching/model/gguf/mmproj_config.hpp"
#include "corematching/model/gguf/mmproj_tensors.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Gives a LLaVA tower and projector of an mmproj file, as weight_reader gives it those of a checkpoint.
template <backend B>
class mmproj_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  /// Matrices become weights of type `wanted`; without one, and where that is a block format, they are as
  /// they are stored, or binary32. `threads` widen blocks. Throws `error` where the file is not as
  /// read_whole_mmproj_config() demands.
  mmproj_reader(B& be, const io::gguf_file& from, int threads, load_progress progress = {},
                std::optional<dtype> wanted = {})
      : be_(be),
        from_(from),
        names_(read_whole_mmproj_config(from).names),
        threads_(threads),
        progress_(std::move(progress)) {
    if (wanted && !is_quantised(*wanted)) wanted_ = whole_of(*wanted);
  }

  /// What names of transformers begin with; the last candidate is theirs.
  std::string prefix(std::initializer_list<std::string_view> candidates, std::string_view) const {
    return std::string(candidates.end()[-1]);
  }

  /// A tensor whose elements, row by row, are a [rows, cols] matrix.
  matrix_weight vision_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    const io::gguf_tensor& tensor = checked(name, shape);
    try {
      io::will_need(tensor.bytes);
      const auto rows = static_cast<index>(*shape.begin());
      weight<host_space> stored = stored_rows(tensor, rows, elements(shape) / rows);
      const bool converts = wanted_ && *wanted_ != stored.view.type;
      const bool maps = stored.owner == tensor.storage && !converts;
      matrix_weight result =
          converts ? be_.convert_weight(stored.view, *wanted_, false) : be_.place_weight(std::move(stored));
      if (!maps) tensor.give_back();
      report(tensor);
      return result;
    } catch (const error& problem) {
      fail(gguf_place(tensor), " ", io::name_of(tensor.type), " ", io::shape_text(tensor.shape), ": ",
           problem.what());
    }
  }

  /// All elements of a tensor as binary32 in host memory.
  std::vector<float> values(const std::string& name, std::initializer_list<std::int64_t> shape) {
    const io::gguf_tensor& tensor = checked(name, shape);
    report(tensor);
    if (number_type_of(tensor.type)) return gguf_values(tensor);
    std::vector<float> result(static_cast<std::size_t>(elements(shape)));
    const auto rows = static_cast<index>(*shape.begin());
    try {
      widen_blocks(blocks_of(tensor, rows, elements(shape) / rows), result.data(), threads_);
    } catch (const error& problem) {
      fail(gguf_place(tensor), ": ", problem.what());
    }
    return result;
  }

  parameters<B> vector(const std::string& name, index size) {
    const std::vector<float> host = values(name, {size});
    return be_.place_vector({host.data(), size});
  }
  parameters<B> vector_if(bool wanted, const std::string& name, index size) {
    return wanted ? vector(name, size) : parameters<B>();
  }

 private:
  static index elements(std::initializer_list<std::int64_t> shape) {
    return static_cast<index>(
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies()));
  }

  static ggml_matrix blocks_of(const io::gguf_tensor& tensor, index rows, index cols) {
    return {tensor.bytes.data(), tensor.type, rows, cols};
  }

  const io::gguf_tensor& checked(const std::string& name, std::initializer_list<std::int64_t> shape) const {
    const io::gguf_tensor& tensor = from_.at(names_(name));
    check_gguf_shape(tensor, shape);
    return tensor;
  }

  /// Numbers where they are mapped, or a copy of those that lie misaligned in their file; blocks as binary32.
  weight<host_space> stored_rows(const io::gguf_tensor& tensor, index rows, index cols) {
    const auto number = number_type_of(tensor.type);
    const dtype type = number.value_or(dtype::f32);
    const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)));
    if (number && reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % bytes_of(type, 1) == 0)
      return {{tensor.bytes.data(), type, rows, cols, row_bytes}, tensor.storage};
    const std::shared_ptr<std::byte> memory =
        be_.weight_memory(static_cast<std::size_t>(stored_bytes(type, rows, cols)));
    if (number)
      std::memcpy(memory.get(), tensor.bytes.data(), tensor.bytes.size());
    else
      widen_blocks(blocks_of(tensor, rows, cols), reinterpret_cast<float*>(memory.get()), threads_);
    return {{memory.get(), type, rows, cols, row_bytes}, memory};
  }

  void report(const io::gguf_tensor& tensor) {
    done_ += tensor.bytes.size();
    if (progress_) progress_(done_);
  }

  B& be_;
  const io::gguf_file& from_;
  mmproj_names names_;
  int threads_;
  load_progress progress_;
  std::optional<dtype> wanted_;
  std::uint64_t done_ = 0;
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// From tensors of a checkpoint to weights of a backend. Matrices stay in the file's mapping wherever the
// backend can read them there, or are converted while they are read: one tensor at a time, whose pages go
// back to the system. A shape that does not fit is an error that names file, tensor and both shapes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Called while a model is loaded, with the bytes of the tensors read so far.
using load_progress = std::function<void(std::uint64_t done)>;

template <backend B>
class weight_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  /// Matrices become weights of type `wanted`; without one they stay as they are stored. A type of two planes
  /// is for the neurons' alone; others then become what it splits.
  weight_reader(B& be, const io::checkpoint& from, load_progress progress = {},
                std::optional<dtype> wanted = {})
      : be_(be), from_(from), progress_(std::move(progress)), wanted_(wanted) {}
  /// Reads nothing but names, types and shapes: what is asked for comes back empty, and what is wrong with it
  /// is added to `problems` instead of thrown. For whoever wants to know whether a model could be loaded.
  weight_reader(B& be, const io::checkpoint& from, std::vector<std::string>& problems)
      : be_(be), from_(from), problems_(&problems) {}

  std::string prefix(std::initializer_list<std::string_view> candidates, std::string_view probe) const {
    return tensor_prefix(from_, candidates, probe);
  }
  std::string language_prefix() const { return corematching::language_prefix(from_); }
  word_embeddings embeddings_of(const llama_config& config) const {
    return stored_word_embeddings(config, from_);
  }

  /// A tensor whose elements, row by row, are a [rows, cols] matrix; `shape` is what the file must say.
  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return read_matrix(name, shape, whole_type());
  }

  /// The same for a matrix whose weights may stand in two planes.
  matrix_weight neuron_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return read_matrix(name, shape, wanted_);
  }

  /// The same for matrices of what looks at a picture: never in a block format. That part is small and runs
  /// once for a picture, so there is nothing to gain that would be worth its accuracy.
  matrix_weight vision_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return read_matrix(name, shape, wanted_ && is_quantised(*wanted_) ? std::nullopt : whole_type());
  }

  /// The transposed of a tensor [rows, cols]: a matrix [cols, rows].
  matrix_weight transposed(const std::string& name, index rows, index cols) {
    if (only_checks(name, {rows, cols})) return {};
    const io::tensor& tensor = checked(name, {rows, cols});
    return converted(tensor, in_memory(tensor, rows, cols), whole_type().value_or(weight_dtype(tensor)),
                     true);
  }

  /// All elements of a tensor as binary32 in host memory. Throws `error` if one is no finite number; matrices
  /// that stay where they are mapped are not looked through, since that would read the whole file.
  std::vector<float> values(const std::string& name, std::initializer_list<std::int64_t> shape) {
    if (only_checks(name, shape)) {
      const std::int64_t size =
          std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies());
      return std::vector<float>(static_cast<std::size_t>(size));
    }
    const io::tensor& tensor = checked(name, shape);
    std::vector<float> result(static_cast<std::size_t>(elements(tensor)));
    visit_elements(weight_dtype(tensor), [&]<class T>() {
      for (std::size_t i = 0; i < result.size(); ++i) {
        T stored;
        std::memcpy(&stored, tensor.bytes.data() + i * sizeof(T), sizeof(T));
        result[i] = to_float(stored);
      }
    });
    const auto wrong = std::ranges::find_if_not(result, [](float x) { return std::isfinite(x); });
    require(wrong == result.end(), tensor.file.string(), ": tensor \"", name, "\" holds ",
            wrong == result.end() ? 0 : *wrong, ", which is no finite number");
    report(tensor);
    return result;
  }

  /// Takes the pages of a tensor that is not looked at any more out of this process.
  void give_back(const std::string& name) const { io::give_back(from_.at(name).bytes); }

  /// A vector of `size` parameters.
  parameters<B> vector(const std::string& name, index size) {
    const std::vector<float> host = values(name, {size});
    return be_.place_vector({host.data(), size});
  }

  /// The same where `wanted`, otherwise nothing.
  parameters<B> vector_if(bool wanted, const std::string& name, index size) {
    return wanted ? vector(name, size) : parameters<B>();
  }

 private:
  bool only_checks(const std::string& name, std::initializer_list<std::int64_t> shape) const {
    if (problems_ == nullptr) return false;
    try {
      static_cast<void>(checked(name, shape));
    } catch (const error& problem) {
      problems_->emplace_back(problem.what());
    }
    return true;
  }

  std::optional<dtype> whole_type() const {
    return wanted_ ? std::optional<dtype>(whole_of(*wanted_)) : std::nullopt;
  }

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

  /// The tensor where it is mapped; a copy of one that lies misaligned in its file.
  weight<host_space> in_memory(const io::tensor& tensor, index rows, index cols) {
    const dtype type = weight_dtype(tensor);
    const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)));
    if (tensor.is_aligned()) return {{tensor.bytes.data(), type, rows, cols, row_bytes}, tensor.storage};
    auto copy = be_.weight_memory(tensor.bytes.size());
    std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
    return {{copy.get(), type, rows, cols, row_bytes}, copy};
  }

  matrix_weight read_matrix(const std::string& name, std::initializer_list<std::int64_t> shape,
                            std::optional<dtype> wanted) {
    if (only_checks(name, shape)) return {};
    const io::tensor& tensor = checked(name, shape);
    const auto rows = static_cast<index>(*shape.begin());
    weight<host_space> stored = in_memory(tensor, rows, elements(tensor) / rows);
    if (wanted && *wanted != stored.view.type) return converted(tensor, stored, *wanted, false);
    report(tensor);
    return be_.place_weight(std::move(stored));
  }

  matrix_weight converted(const io::tensor& tensor, const weight<host_space>& stored, dtype target,
                          bool transposed) {
    io::will_need(tensor.bytes);
    try {
      matrix_weight result = be_.convert_weight(stored.view, target, transposed);
      io::give_back(tensor.bytes);
      report(tensor);
      return result;
    } catch (const error& problem) {
      fail(tensor.file.string(), ": tensor \"", tensor.name, "\" ", io::shape_text(tensor.shape), " as ",
           name_of(target), ": ", problem.what());
    }
  }

  void report(const io::tensor& tensor) {
    done_ += tensor.bytes.size();
    if (progress_) progress_(done_);
  }

  B& be_;
  const io::checkpoint& from_;
  load_progress progress_;
  std::optional<dtype> wanted_;
  std::vector<std::string>* problems_ = nullptr;
  std::uint64_t done_ = 0;
};

}  // namespace corematching

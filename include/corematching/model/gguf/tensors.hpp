// SPDX-License-Identifier: Apache-2.0
// The tensors of a decoder in a GGUF file: whether all are there as they must be, what they hold, and as what
// they are computed with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/ggml_type.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/tensor.hpp"
#include "corematching/model/gguf/moved_weights.hpp"
#include "corematching/model/gguf/names.hpp"
#include "corematching/model/llama/tensors.hpp"

namespace corematching {

/// Ours where elements are numbers that we have, otherwise nothing.
constexpr std::optional<dtype> number_type_of(io::ggml_type type) {
  switch (type) {
    case io::ggml_type::f32: return dtype::f32;
    case io::ggml_type::f16: return dtype::f16;
    case io::ggml_type::bf16: return dtype::bf16;
    default: return std::nullopt;
  }
}

inline std::string gguf_place(const io::gguf_tensor& tensor) {
  return tensor.file.string() + ": tensor " + io::in_quotes(tensor.name);
}

/// Throws `error` naming file and tensor where its shape is another.
inline void check_gguf_shape(const io::gguf_tensor& tensor, const std::vector<std::int64_t>& shape) {
  require(tensor.shape == shape, gguf_place(tensor), " has shape ", io::shape_text(tensor.shape),
          ", but the metadata ask for ", io::shape_text(shape));
}

/// All elements of a tensor of numbers as binary32. Throws `error` naming file and tensor for another type
/// and for what is no finite number.
inline std::vector<float> gguf_values(const io::gguf_tensor& tensor) {
  const auto type = number_type_of(tensor.type);
  if (!type) fail(gguf_place(tensor), " is ", io::name_of(tensor.type), ", expected F32, F16 or BF16");
  std::vector<float> values(tensor.bytes.size() / bytes_of(*type, 1));
  visit_elements(*type, [&]<class T>() {
    for (std::size_t i = 0; i < values.size(); ++i) {
      T stored;
      std::memcpy(&stored, tensor.bytes.data() + i * sizeof(T), sizeof(T));
      values[i] = to_float(stored);
    }
  });
  const auto wrong = std::ranges::find_if_not(values, [](float x) { return std::isfinite(x); });
  require(wrong == values.end(), gguf_place(tensor), " holds ", wrong == values.end() ? 0 : *wrong,
          ", which is no finite number");
  return values;
}

/// The format whose rows are those of the file, byte for byte: of numbers, and of blocks that we compute with
/// as they are.
constexpr std::optional<dtype> kept_type_of(io::ggml_type type) {
  switch (type) {
    case io::ggml_type::q4_k: return dtype::q4_k;
    case io::ggml_type::q5_k: return dtype::q5_k;
    case io::ggml_type::q6_k: return dtype::q6_k;
    default: return number_type_of(type);
  }
}

/// What rows of a tensor are without a conversion: kept as they are, or moved.
inline dtype gguf_row_type(const io::gguf_tensor& tensor) {
  const auto kept = kept_type_of(tensor.type);
  return kept ? *kept : row_type_of(tensor.type);
}

/// The format that splits rows of a type into planes and changes no number; nothing where there is none.
constexpr std::optional<dtype> planes_of(io::ggml_type type) {
  switch (type) {
    case io::ggml_type::q8_0: return dtype::q8_0_planes;
    case io::ggml_type::q4_0: return dtype::q4_0_planes;
    case io::ggml_type::q4_k: return dtype::q4_k_planes;
    default: return std::nullopt;
  }
}

/// As what a tensor is computed with where no other type is asked for. Gate and up are of one type always: if
/// their rows would not be, both are moved, to wide_16m if need be, which holds all blocks, or are f32.
inline dtype gguf_type(const io::gguf_file& file, const tensor_description& t) {
  if (t.kind == tensor_kind::vector) return dtype::f32;
  const std::string name = gguf_name(t.name);
  const io::gguf_tensor& tensor = file.at(name);
  if (t.kind == tensor_kind::transposed) {
    const auto number = number_type_of(tensor.type);
    return number ? *number : neuron_type_of(tensor.type);
  }
  const dtype own = gguf_row_type(tensor);
  if (t.kind == tensor_kind::matrix) return own;
  const auto place = name.find("ffn_gate");
  const std::string other = place != name.npos
                                ? std::string(name).replace(place, 8, "ffn_up")
                                : std::string(name).replace(name.find("ffn_up"), 6, "ffn_gate");
  const dtype others = gguf_row_type(file.at(other));
  if (own == others) return own;
  if (!is_quantised(own) || !is_quantised(others)) return dtype::f32;
  const dtype moved = row_type_of(tensor.type);
  return moved == row_type_of(file.at(other).type) ? moved : dtype::wide_16m;
}

/// As what all tensors of a file are computed with where matrices of type `wanted` are asked for: of that
/// type, which may be one of planes for the neurons' alone, or without one as gguf_type() says. Where all of
/// the neurons' are what `wanted` splits into planes, they are split and the others stay as they are stored.
class gguf_weight_types {
 public:
  /// Throws `error` for planes that nothing is rounded to, where a file does not hold what they split.
  gguf_weight_types(const io::gguf_file& file, const llama_config& config, std::optional<dtype> wanted)
      : file_(file), wanted_(wanted) {
    if (!wanted || !has_planes(*wanted)) return;
    const io::gguf_tensor* other = nullptr;
    for (index i = 0; i < config.layers; ++i)
      visit_layer(config, layer_prefix("model.", i), [&](const tensor_description& t, auto) {
        if (t.kind != tensor_kind::neuron_matrix) return;
        const io::gguf_tensor& tensor = file.at(gguf_name(t.name));
        if (planes_of(tensor.type) != wanted) other = &tensor;
      });
    splits_ = other == nullptr;
    if (other != nullptr && std::ranges::count(split_types, *wanted) > 0)
      fail(gguf_place(*other), " is ", io::name_of(other->type), ": ", name_of(*wanted), " split ",
           name_of(whole_of(*wanted)), " alone");
  }

  dtype operator()(const tensor_description& t) const {
    if (t.kind == tensor_kind::vector) return dtype::f32;
    if (!wanted_ || (splits_ && t.kind != tensor_kind::neuron_matrix)) return gguf_type(file_, t);
    return t.kind == tensor_kind::neuron_matrix ? *wanted_ : whole_of(*wanted_);
  }

  /// Whether gate and up are split and nothing is rounded.
  bool splits() const { return splits_; }

 private:
  const io::gguf_file& file_;
  std::optional<dtype> wanted_;
  bool splits_ = false;
};

/// Calls visit(description) for every tensor that a decoder of this shape has in a GGUF file.
template <class Visitor>
void visit_gguf_tensors(const llama_config& config, Visitor&& visit) {
  visit(tensor_description{tensor_kind::matrix, "model.embed_tokens.weight", config.vocab_size,
                           config.hidden_size});
  for (index i = 0; i < config.layers; ++i)
    visit_layer(config, layer_prefix("model.", i), [&](const tensor_description& t, auto) { visit(t); });
  visit(tensor_description{tensor_kind::vector, "model.norm.weight", 1, config.hidden_size});
  if (!config.tie_word_embeddings)
    visit(tensor_description{tensor_kind::matrix, "lm_head.weight", config.vocab_size, config.hidden_size});
}

/// What is wrong with the tensors of `file` for a model of this shape, a line for each: those that are
/// missing, of another shape or of a type that is not read, and those that nothing would read.
inline std::vector<std::string> gguf_problems(const io::gguf_file& file, const llama_config& config) {
  std::vector<std::string> problems;
  std::set<std::string, std::less<>> known{std::string(gguf_rope_divisors)};
  visit_gguf_tensors(config, [&](const tensor_description& t) {
    try {
      const io::gguf_tensor& tensor = file.at(*known.insert(gguf_name(t.name)).first);
      const bool is_vector = t.kind == tensor_kind::vector;
      check_gguf_shape(
          tensor, is_vector ? std::vector<std::int64_t>{t.cols} : std::vector<std::int64_t>{t.rows, t.cols});
      if (is_vector && !number_type_of(tensor.type))
        fail(gguf_place(tensor), " is ", io::name_of(tensor.type), ", expected F32, F16 or BF16");
      if (!number_type_of(tensor.type)) {
        try {
          static_cast<void>(row_type_of(tensor.type));
        } catch (const error& refused) {
          fail(gguf_place(tensor), ": ", refused.what());
        }
        require(t.kind != tensor_kind::transposed || t.rows % block_size == 0, gguf_place(tensor),
                ": needs a multiple of ", block_size, " rows, not ", t.rows);
      }
    } catch (const error& problem) {
      problems.emplace_back(problem.what());
    }
  });
  for (const auto& [name, tensor] : file.tensors())
    if (!known.contains(name)) problems.push_back(gguf_place(tensor) + " is none that such a model has here");
  return problems;
}

}  // namespace corematching

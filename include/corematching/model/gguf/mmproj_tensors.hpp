// SPDX-License-Identifier: Apache-2.0
// The tensors of an mmproj file: whether all are there as they must be, and the numbers that they stand for.
#pragma once

#include <atomic>
#include <charconv>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/view.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/tensor.hpp"
#include "corematching/model/gguf/in_parallel.hpp"
#include "corematching/model/gguf/mmproj_config.hpp"
#include "corematching/model/gguf/moved_weights.hpp"
#include "corematching/model/gguf/tensors.hpp"

namespace corematching {

/// Calls visit(name, shape) for every tensor that is read, by its name in transformers.
template <class Visitor>
void visit_mmproj_tensors(const mmproj_config& config, Visitor&& visit) {
  using shape = std::vector<std::int64_t>;
  const index d = config.vision.hidden_size, m = config.vision.intermediate_size;
  const index p = config.vision.patch_size, out = config.token_size;
  const std::string tower(mmproj_tower), projector(mmproj_projector);
  const auto with_bias = [&](const std::string& name, const shape& weight) {
    visit(name + ".weight", weight);
    visit(name + ".bias", shape{weight.front()});
  };
  visit(tower + "embeddings.class_embedding", shape{d});
  visit(tower + "embeddings.patch_embedding.weight", shape{d, 3, p, p});
  visit(tower + "embeddings.position_embedding.weight", shape{1 + config.vision.patches(), d});
  with_bias(tower + "pre_layrnorm", {d});
  for (index i = 0; i < config.layers; ++i) {
    const std::string layer = tower + "encoder.layers." + std::to_string(i) + ".";
    for (const char* norm : {"layer_norm1", "layer_norm2"}) with_bias(layer + norm, {d});
    for (const char* one : {"q_proj", "k_proj", "v_proj", "out_proj"})
      with_bias(layer + "self_attn." + one, {d, d});
    with_bias(layer + "mlp.fc1", {m, d});
    with_bias(layer + "mlp.fc2", {d, m});
  }
  for (const auto& [name, cols] : {std::pair("linear_1", d), std::pair("linear_2", out)}) {
    visit(projector + name + ".weight", shape{out, cols});
    if (config.projector_bias) visit(projector + name + ".bias", shape{out});
  }
}

namespace detail {

/// Whether a file may hold a tensor that is not read: of the layers behind those that run, and the final
/// normalisation.
inline bool is_behind_features(std::string_view name, const mmproj_config& config) {
  if (name.starts_with("v.post_ln.")) return true;
  constexpr std::string_view block = "v.blk.";
  if (!name.starts_with(block)) return false;
  index number = -1;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + block.size(), end, number);
  return parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '.' && number >= config.layers &&
         number < config.vision.layers;
}

inline void check_mmproj_type(const io::gguf_tensor& tensor) {
  if (number_type_of(tensor.type)) return;
  if (tensor.shape.size() < 2)
    fail(gguf_place(tensor), " is ", io::name_of(tensor.type), ", expected F32, F16 or BF16");
  try {
    static_cast<void>(row_type_of(tensor.type));
  } catch (const error& refused) {
    fail(gguf_place(tensor), ": ", refused.what());
  }
}

}  // namespace detail

/// What is wrong with the tensors of `file` for a tower and a projector of this shape, a line for each: those
/// that are missing, of another shape or of a type that is not read, and those that such a model has not.
inline std::vector<std::string> mmproj_problems(const io::gguf_file& file, const mmproj_config& config) {
  std::vector<std::string> problems;
  std::set<std::string, std::less<>> known;
  visit_mmproj_tensors(config, [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    try {
      const io::gguf_tensor& tensor = file.at(*known.insert(config.names(name)).first);
      check_gguf_shape(tensor, shape);
      detail::check_mmproj_type(tensor);
    } catch (const error& problem) {
      problems.emplace_back(problem.what());
    }
  });
  for (const auto& [name, tensor] : file.tensors())
    if (!known.contains(name) && !detail::is_behind_features(name, config))
      problems.push_back(gguf_place(tensor) + " is none that a tower of CLIP and a projector have here");
  return problems;
}

/// The shape of an mmproj file all of whose tensors are as they must be. Throws `error` for the first that is
/// not, and as read_mmproj_config() does.
inline mmproj_config read_whole_mmproj_config(const io::gguf_file& file) {
  mmproj_config config = read_mmproj_config(file);
  const auto problems = mmproj_problems(file, config);
  require(problems.empty(), problems.empty() ? "" : problems.front());
  return config;
}

/// All elements of a quantised matrix as binary32, to `to`, by `threads`. A quant times its scale is exact
/// there. Throws `error` for a scale that is no finite number.
inline void widen_blocks(const ggml_matrix& from, float* to, int threads) {
  std::atomic<bool> finite = true;
  visit_ggml_blocks(from.type, [&]<class Block>() {
    in_parallel(threads, from.rows, [&](index first, index last) {
      widened_block piece;
      for (index i = first; i < last; ++i)
        for (index column = 0; column < from.cols; column += block_size) {
          Block::unpack(detail::block_at<Block>(from, i, column), column % Block::block / block_size, piece);
          if (!detail::is_finite(piece)) finite = false;
          float* const values = to + i * from.cols + column;
          for (index j = 0; j < block_size; ++j)
            values[j] = piece.scales[j / widened_block::group] * static_cast<float>(piece.quants[j]) +
                        piece.minima[j / widened_block::group];
        }
    });
  });
  detail::require_finite(finite);
}

}  // namespace corematching

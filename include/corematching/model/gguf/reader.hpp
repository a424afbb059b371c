// SPDX-License-Identifier: Apache-2.0
// The tensors of a GGUF file as weights of a backend: numbers stay where they are mapped, rows in
// super-blocks are as the file has them, other quantised ones are moved to our layouts (moved_weights.hpp),
// or all are converted to the type that is asked for. Scales that are not finite are refused, and so is
// what is converted; matrices of numbers are otherwise not looked through, since that would read the whole
// file.
#pragma once

#include <algorithm>
#include <atomic>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/tensor.hpp"
#include "corematching/model/gguf/config.hpp"
#include "corematching/model/gguf/moved_weights.hpp"
#include "corematching/model/gguf/names.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/model/weights.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Gives a model the tensors of a GGUF file, as weight_reader gives it those of a checkpoint.
template <backend B>
class gguf_reader {
 public:
  using matrix_weight = weight<typename B::space>;

  /// `config`: what read_gguf_config(from) says. Matrices become weights as gguf_weight_types has them for
  /// `wanted`. `threads` move them. Throws `error` where tensors are missing, of another shape or type, or
  /// more than the model has.
  gguf_reader(B& be, const io::gguf_file& from, const llama_config& config, int threads,
              load_progress progress = {}, std::optional<dtype> wanted = {})
      : be_(be),
        from_(from),
        config_(config),
        threads_(threads),
        progress_(std::move(progress)),
        types_(types_of(from, config, wanted)),
        turns_neighbours_(gguf_architecture_of(from).turns_neighbours) {}

  std::string language_prefix() const { return "model."; }
  word_embeddings embeddings_of(const llama_config& config) const {
    const std::string embedding = "model.embed_tokens.weight";
    return {embedding, config.tie_word_embeddings ? embedding : "lm_head.weight", ""};
  }

  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t>) {
    return read({tensor_kind::matrix, name, 0, 0});
  }
  matrix_weight neuron_matrix(const std::string& name, std::initializer_list<std::int64_t>) {
    return read({tensor_kind::neuron_matrix, name, 0, 0});
  }
  matrix_weight transposed(const std::string& name, index, index) {
    return read({tensor_kind::transposed, name, 0, 0});
  }

  /// Takes the pages of a tensor that is not looked at any more out of this process.
  void give_back(const std::string& name) const { from_.at(gguf_name(name)).give_back(); }

  /// All elements of a vector as binary32 in host memory.
  std::vector<float> values(const std::string& name, std::initializer_list<std::int64_t>) {
    const io::gguf_tensor& tensor = from_.at(gguf_name(name));
    const std::vector<float> stored = gguf_values(tensor);
    std::vector<float> result = stored;
    const index heads = turned_heads(name);
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = stored[static_cast<std::size_t>(source_row(static_cast<index>(i), heads))];
    report(tensor);
    return result;
  }
  parameters<B> vector(const std::string& name, index size) {
    const std::vector<float> host = values(name, {size});
    return be_.place_vector({host.data(), size});
  }

 private:
  static gguf_weight_types types_of(const io::gguf_file& from, const llama_config& config,
                                    std::optional<dtype> wanted) {
    const auto problems = gguf_problems(from, config);
    require(problems.empty(), problems.empty() ? "" : problems.front());
    return {from, config, wanted};
  }

  /// Heads of a projection whose rows are in GGUF's order; 0 where they are in ours.
  index turned_heads(const std::string& name) const {
    if (!turns_neighbours_) return 0;
    if (name.find(".q_proj.") != name.npos) return config_.heads;
    return name.find(".k_proj.") != name.npos ? config_.kv_heads : 0;
  }

  /// Where our row `i` stands in the file: row j of the first half of a head is its row 2 j there, and row j
  /// of the second half is 2 j + 1.
  index source_row(index i, index heads) const {
    if (heads == 0) return i;
    const index d = config_.head_dim, in_head = i % d, half = d / 2;
    return i - in_head + 2 * (in_head % half) + in_head / half;
  }

  /// Asks for the layer behind that of tensor `name`, where it is the first of its own that is read, so that
  /// the disk reads on while tensors are moved.
  void ask_ahead(const std::string& name) {
    constexpr std::string_view layers = "model.layers.";
    if (!name.starts_with(layers)) return;
    index layer = 0;
    std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
    if (layer < asked_ || layer + 1 >= config_.layers) return;
    asked_ = layer + 1;
    visit_layer(config_, layer_prefix("model.", asked_),
                [&](const tensor_description& t, auto) { io::will_need(from_.at(gguf_name(t.name)).bytes); });
  }

  matrix_weight read(const tensor_description& t) {
    const io::gguf_tensor& tensor = from_.at(gguf_name(t.name));
    try {
      io::will_need(tensor.bytes);
      ask_ahead(t.name);
      matrix_weight result = made_of(t, tensor, types_(t));
      if (result.owner != tensor.storage) tensor.give_back();
      report(tensor);
      return result;
    } catch (const error& problem) {
      fail(gguf_place(tensor), " ", io::name_of(tensor.type), " ", io::shape_text(tensor.shape), ": ",
           problem.what());
    }
  }

  matrix_weight made_of(const tensor_description& t, const io::gguf_tensor& tensor, dtype target) {
    const bool transposed = t.kind == tensor_kind::transposed;
    if (shares_scales(target)) return moved_neurons(tensor, target);
    const auto kept = kept_type_of(tensor.type);
    weight<host_space> rows = kept && !is_moved(tensor.type, target)
                                  ? kept_rows(tensor, *kept, turned_heads(t.name))
                                  : moved_rows(tensor, target, turned_heads(t.name));
    if (!transposed && rows.view.type == target) return be_.place_weight(std::move(rows));
    if (types_.splits() && has_planes(target)) return be_.place_weight(split(rows.view, target));
    if constexpr (std::same_as<typename B::space, device_space>)
      if (is_quantised(rows.view.type)) rows = widened(rows.view);  // a device takes no blocks
    return be_.convert_weight(rows.view, target, transposed);
  }

  /// Whether a type's blocks are moved to have rows of type `target`.
  static bool is_moved(io::ggml_type type, dtype target) {
    return !number_type_of(type) && (target == dtype::wide_16m || target == row_type_of(type));
  }

  static ggml_matrix matrix_of(const io::gguf_tensor& tensor) {
    return {tensor.bytes.data(), tensor.type, static_cast<index>(tensor.shape[0]),
            static_cast<index>(tensor.shape[1])};
  }

  /// Memory for a matrix.
  weight<host_space> room(dtype type, index rows, index cols, std::shared_ptr<std::byte>& memory) {
    memory = be_.weight_memory(static_cast<std::size_t>(stored_bytes(type, rows, cols)));
    return {
        {memory.get(), type, rows, cols, static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)))},
        memory};
  }

  matrix_weight moved_neurons(const io::gguf_tensor& tensor, dtype target) {
    const ggml_matrix from = matrix_of(tensor);
    std::shared_ptr<std::byte> memory;
    weight<host_space> result = room(target, from.cols, from.rows, memory);
    move_neurons(from, memory.get(), threads_);
    return be_.place_weight(std::move(result));
  }

  /// As `target` where that is wide_16m, otherwise as the type's rows are moved.
  weight<host_space> moved_rows(const io::gguf_tensor& tensor, dtype target, index heads) {
    const ggml_matrix from = matrix_of(tensor);
    const dtype type = target == dtype::wide_16m ? target : row_type_of(from.type);
    std::shared_ptr<std::byte> memory;
    weight<host_space> result = room(type, from.rows, from.cols, memory);
    move_rows(from, type, memory.get(), threads_, [&](index i) { return source_row(i, heads); });
    return result;
  }

  /// Rows as the file has them, where they are mapped; a copy of one that lies misaligned in its file, or in
  /// another order, and of blocks that a CPU multiplies by: theirs are short rows, which a file's small pages
  /// slow down (docs/performance.md).
  weight<host_space> kept_rows(const io::gguf_tensor& tensor, dtype type, index heads) {
    const ggml_matrix from = matrix_of(tensor);
    const std::size_t row_bytes = bytes_of(type, static_cast<std::size_t>(from.cols));
    const std::size_t alignment = is_quantised(type) ? sizeof(f16) : bytes_of(type, 1);
    const bool is_copied = is_quantised(type) && std::same_as<typename B::space, host_space>;
    if (!is_copied && heads == 0 && reinterpret_cast<std::uintptr_t>(from.data) % alignment == 0)
      return {{from.data, type, from.rows, from.cols, static_cast<index>(row_bytes)}, tensor.storage};
    std::shared_ptr<std::byte> memory;
    weight<host_space> result = room(type, from.rows, from.cols, memory);
    in_parallel(threads_, from.rows, [&](index first, index last) {
      for (index i = first; i < last; ++i)
        std::memcpy(memory.get() + i * result.view.row_bytes,
                    from.data + source_row(i, heads) * result.view.row_bytes, row_bytes);
    });
    if (is_quantised(type)) detail::require_finite(has_finite_scales(result.view));
    return result;
  }

  /// Whether those of all super-blocks are.
  bool has_finite_scales(const stored_view<>& w) const {
    std::atomic<bool> finite = true;
    visit_dtype(w.type, [&]<class T>() {
      if constexpr (super_format<T>) {
        const auto* const blocks = reinterpret_cast<const typename T::stored*>(w.data);
        in_parallel(threads_, w.rows * (w.cols / T::block), [&](index first, index last) {
          if (!std::all_of(blocks + first, blocks + last, T::is_finite)) finite = false;
        });
      }
    });
    return finite;
  }

  /// Rows in planes, where they are what `target` splits.
  weight<host_space> split(const stored_view<>& stored, dtype target) {
    std::shared_ptr<std::byte> memory;
    weight<host_space> result = room(target, stored.rows, stored.cols, memory);
    visit_planes(target, [&]<class T>() {
      if constexpr (quant_plane_format<T>)
        in_parallel(threads_, stored.rows, [&](index first, index last) {
          for (index i = first; i < last; ++i)
            split_row<T>(blocks_of_row<typename T::whole>(stored, i), memory.get(), stored.rows, i);
        });
    });
    return result;
  }

  /// Rows in blocks as binary32.
  weight<host_space> widened(const stored_view<>& stored) {
    std::shared_ptr<std::byte> memory;
    weight<host_space> result = room(dtype::f32, stored.rows, stored.cols, memory);
    auto* const to = reinterpret_cast<float*>(memory.get());
    visit_dtype(stored.type, [&]<class T>() {
      if constexpr (block_format<T>)
        in_parallel(threads_, stored.rows, [&](index first, index last) {
          for (index i = first; i < last; ++i)
            dequantise(blocks_of_row<T>(stored, i), 0, stored.cols, to + i * stored.cols);
        });
    });
    return result;
  }

  void report(const io::gguf_tensor& tensor) {
    done_ += tensor.bytes.size();
    if (progress_) progress_(done_);
  }

  B& be_;
  const io::gguf_file& from_;
  const llama_config& config_;
  int threads_;
  load_progress progress_;
  gguf_weight_types types_;
  bool turns_neighbours_;
  index asked_ = 0;  // the last layer that was asked for
  std::uint64_t done_ = 0;
};

}  // namespace corematching

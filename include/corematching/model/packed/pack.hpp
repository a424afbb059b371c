// SPDX-License-Identifier: Apache-2.0
// Makes packed files: converts a checkpoint's language model once, tensor by tensor, so that loading it again
// is a memory map.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "corematching/io/output_file.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/weights.hpp"

namespace corematching {

namespace detail {

/// Writes tensors of a packed file as a checkpoint has them.
template <backend B>
requires std::same_as<typename B::space, host_space>
class packer {
 public:
  packer(B& be, const io::checkpoint& from, const word_embeddings& named, dtype weights,
         load_progress progress, io::output_file& to)
      : from_(from),
        reader_(be, from, std::move(progress), weights),
        to_(to),
        model_(language_prefix(from)),
        named_(named) {}

  void write(const packed_tensor& t) {
    if (t.is_padding()) {
      const std::vector<std::byte> zeros(static_cast<std::size_t>(t.cols));
      return put(zeros);
    }
    const std::string name = stored_name(t.entry.name);
    if (t.kind == tensor_kind::vector) {
      const std::vector<float> values = reader_.values(name, {t.cols});
      return put(std::as_bytes(std::span(values)));
    }
    const auto w = t.kind == tensor_kind::transposed      ? reader_.transposed(name, t.rows, t.cols)
                   : t.kind == tensor_kind::neuron_matrix ? reader_.neuron_matrix(name, {t.rows, t.cols})
                                                          : reader_.matrix(name, {t.rows, t.cols});
    put({w.view.data, static_cast<std::size_t>(stored_bytes(w.view))});
    io::give_back(from_.at(name).bytes);
  }

  /// Of the tensors written so far.
  const std::vector<std::uint64_t>& checksums() const { return checksums_; }

 private:
  void put(std::span<const std::byte> bytes) {
    checksums_.push_back(data_checksum(bytes));
    to_.write(bytes);
  }

  // model.layers.0... is what the checkpoint may call language_model.model.layers.0...
  std::string stored_name(const std::string& name) const {
    const std::string ours = "model.";
    if (name == "model.embed_tokens.weight") return named_.embedding;
    return name.starts_with(ours) ? model_ + name.substr(ours.size()) : named_.head;
  }

  const io::checkpoint& from_;
  weight_reader<B> reader_;
  io::output_file& to_;
  std::string model_;
  word_embeddings named_;
  std::vector<std::uint64_t> checksums_;
};

}  // namespace detail

/// Writes the language model of `from`, described by `config`, to `path` with weights of type `weights`:
/// whole or not at all, one tensor in memory at a time. Throws `error` for what cannot be read, converted or
/// written, and where `path` is a file of the checkpoint.
template <backend B>
requires std::same_as<typename B::space, host_space>  // what is written lies in host memory
void pack(B& be, const llama_config& config, const io::checkpoint& from, dtype weights,
          const std::filesystem::path& path, load_progress progress = {}) {
  for (const std::string_view name : from.names()) {
    std::error_code ignored;
    require(!std::filesystem::equivalent(from.at(name).file, path, ignored), path.string(),
            ": is a file of the checkpoint, so it is not overwritten");
  }
  const word_embeddings named = stored_word_embeddings(config, from);
  llama_config stored = config;
  stored.tie_word_embeddings = named.tied();
  const packed_layout layout(stored, weights);
  std::vector<io::tensor_entry> entries;
  for (const packed_tensor& t : layout.tensors()) entries.push_back(t.entry);
  std::map<std::string, std::string> metadata{{"format", packed_format},
                                              {"version", packed_version},
                                              {"weights", name_of(weights)},
                                              {"checkpoint", checkpoint_identity(from)}};
  const auto header_with = [&](std::span<const std::uint64_t> checksums) {
    metadata[packed_checksums] = checksum_text(checksums);
    return io::safetensors_header_bytes(entries, metadata, path.string(), packed_layer_alignment);
  };
  io::output_file file(path);
  file.write(std::as_bytes(std::span<const char>(header_with(std::vector<std::uint64_t>(entries.size())))));
  detail::packer<B> packer(be, from, named, weights, std::move(progress), file);
  for (const packed_tensor& t : layout.tensors()) packer.write(t);
  file.rewrite_start(std::as_bytes(std::span<const char>(header_with(packer.checksums()))));
  file.commit();
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Makes packed files: converts the language model of a checkpoint or of a GGUF file once, tensor by tensor,
// so that loading it again is a memory map.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "corematching/io/gguf_file.hpp"
#include "corematching/io/output_file.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "corematching/model/gguf/reader.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/gguf_layout.hpp"
#include "corematching/model/packed/identity.hpp"
#include "corematching/model/packed/layout.hpp"
#include "corematching/model/weights.hpp"

namespace corematching {

namespace detail {

/// Writes tensors of a packed file as `Reader`, that of a checkpoint or of a GGUF file, has them.
template <class Reader>
class packer {
 public:
  packer(Reader& reader, const llama_config& config, io::output_file& to)
      : reader_(reader), to_(to), model_(reader.language_prefix()), named_(reader.embeddings_of(config)) {}

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
    reader_.give_back(name);
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

  Reader& reader_;
  io::output_file& to_;
  std::string model_;
  word_embeddings named_;
  std::vector<std::uint64_t> checksums_;
};

/// Throws `error` where `path` is `file`, a part of the model.
inline void refuse_overwriting(const std::filesystem::path& path, const std::filesystem::path& file) {
  std::error_code ignored;
  require(!std::filesystem::equivalent(file, path, ignored), path.string(),
          ": is a file of the checkpoint, so it is not overwritten");
}

/// Writes the tensors of `layout`, as `reader` has them, to `path`.
template <class Reader>
void write_packed(Reader& reader, const llama_config& config, const packed_layout& layout,
                  std::optional<dtype> weights, const std::string& identity,
                  const std::filesystem::path& path) {
  std::vector<io::tensor_entry> entries;
  for (const packed_tensor& t : layout.tensors()) entries.push_back(t.entry);
  std::map<std::string, std::string> metadata{{"format", packed_format},
                                              {"version", packed_version},
                                              {"weights", packed_weights_name(weights)},
                                              {"checkpoint", identity}};
  const auto header_with = [&](std::span<const std::uint64_t> checksums) {
    metadata[packed_checksums] = checksum_text(checksums);
    return io::safetensors_header_bytes(entries, metadata, path.string(), packed_layer_alignment);
  };
  io::output_file file(path);
  std::vector<std::uint64_t> sums(entries.size() + 1);  // the last one is the header's own
  file.write(std::as_bytes(std::span<const char>(header_with(sums))));
  packer<Reader> packer(reader, config, file);
  for (const packed_tensor& t : layout.tensors()) packer.write(t);
  std::ranges::copy(packer.checksums(), sums.begin());
  const std::string header = header_with(sums);
  sums.back() = header_checksum(header, checksum_text(sums));
  file.rewrite_start(std::as_bytes(std::span<const char>(header_with(sums))));
  file.commit();
}

}  // namespace detail

/// Writes the language model of `from`, described by `config`, to `path` with weights of type `weights`:
/// whole or not at all, one tensor in memory at a time. Throws `error` for what cannot be read, converted or
/// written, and where `path` is a file of the checkpoint.
template <backend B>
requires std::same_as<typename B::space, host_space>  // what is written lies in host memory
void pack(B& be, const llama_config& config, const io::checkpoint& from, dtype weights,
          const std::filesystem::path& path, load_progress progress = {}) {
  for (const std::string_view name : from.names()) detail::refuse_overwriting(path, from.at(name).file);
  llama_config stored = config;
  stored.tie_word_embeddings = stored_word_embeddings(config, from).tied();
  weight_reader<B> reader(be, from, std::move(progress), weights);
  detail::write_packed(reader, config, packed_layout(stored, weights), weights, checkpoint_identity(from),
                       path);
}

/// The same of a GGUF file whose read_gguf_config() is `config`. Without a type weights are as stored: moved
/// to our layouts and no number changed. `threads` move them.
template <backend B>
requires std::same_as<typename B::space, host_space>
void pack(B& be, const llama_config& config, const io::gguf_file& from, std::optional<dtype> weights,
          const std::filesystem::path& path, int threads, load_progress progress = {}) {
  for (const auto& [name, tensor] : from.tensors()) detail::refuse_overwriting(path, tensor.file);
  gguf_reader<B> reader(be, from, config, threads, std::move(progress), weights);
  detail::write_packed(reader, config, gguf_layout(from, config, weights), weights, gguf_identity(from),
                       path);
}

}  // namespace corematching

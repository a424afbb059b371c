// SPDX-License-Identifier: Apache-2.0
// A packed file of a checkpoint's language model, checked in full when it is opened. Tensors are used where
// they are mapped, so opening is all the loading there is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "corematching/model/packed/layout.hpp"

namespace corematching {

inline constexpr const char* packed_format = "corematching-packed";
inline constexpr const char* packed_version = "2";

/// What tells a checkpoint from others: for each of its files the name, the size and a checksum of its header
/// and of 64 bytes from the middle of every tensor, since a fine-tuned model differs in nothing else.
inline std::string checkpoint_identity(const io::checkpoint& from) {
  std::map<std::filesystem::path, std::vector<std::byte>> files;  // what stands for each
  const auto append = [](std::vector<std::byte>& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
  };
  for (const std::string_view name : from.names()) {
    const io::tensor& tensor = from.at(name);
    const auto middle = tensor.bytes.subspan(tensor.bytes.size() / 2);
    append(files[tensor.file], middle.first(std::min<std::size_t>(64, middle.size())));
  }
  std::string text;
  for (auto& [path, sample] : files) {
    const io::mapped_file file = io::mapped_file::open(path);
    const auto header = io::parse_safetensors_header(file.bytes(), path.string());
    append(sample, file.bytes().first(header.data_start));
    const std::uint64_t sum = data_checksum(sample);
    text += path.filename().string() + " " + std::to_string(file.bytes().size()) + " " +
            checksum_text({&sum, 1}) + "\n";
  }
  return text;
}

/// The type of the weights that a packed file says it holds. Throws `error` if it is none.
inline dtype packed_weights(const std::filesystem::path& path) {
  const auto file = io::safetensors_file::open(path);
  const auto said = file.metadata().find("weights");
  const auto type = said == file.metadata().end() ? std::nullopt : dtype_named(said->second);
  require(type.has_value(), path.string(), ": is not a packed file");
  return *type;
}

class packed_file {
 public:
  /// Throws `error` naming `path` unless it is a packed file of weights of type `wanted`, of the checkpoint
  /// with this identity, and with the tensors that `config` asks for.
  packed_file(std::filesystem::path path, const llama_config& config, dtype wanted,
              const std::string& identity)
      : path_(std::move(path)),
        layout_(config, wanted),
        mapping_(std::make_shared<const io::mapped_file>(io::mapped_file::open(path_))) {
    const io::safetensors_header header = io::parse_safetensors_header(mapping_->bytes(), path_.string());
    const auto said = [&](const char* key) {
      const auto found = header.metadata.find(key);
      return found == header.metadata.end() ? std::string() : found->second;
    };
    require(said("format") == packed_format, path_.string(), ": is not a packed file");
    require(said("version") == packed_version, path_.string(), ": is of version ",
            io::in_quotes(said("version")), " of the format, this program reads version ", packed_version);
    require(said("weights") == name_of(wanted), path_.string(), ": holds ", io::in_quotes(said("weights")),
            " weights, asked for are ", name_of(wanted));
    require(said("checkpoint") == identity, path_.string(),
            ": was packed from another checkpoint than the one beside config.json");
    require(header.data_start % packed_tensor_alignment == 0, path_.string(), ": its data begin at byte ",
            header.data_start, ", no multiple of ", packed_tensor_alignment);
    check_tensors(header);
    data_start_ = header.data_start;
  }

  const std::filesystem::path& path() const { return path_; }
  const packed_layout& layout() const { return layout_; }
  /// Where in the file the data begin.
  std::uint64_t data_start() const { return data_start_; }
  std::span<const std::byte> data() const { return mapping_->bytes().subspan(data_start_); }
  std::shared_ptr<const void> owner() const { return mapping_; }

 private:
  void check_tensors(const io::safetensors_header& header) const {
    for (std::size_t i = 0; i < layout_.tensors().size(); ++i) {
      const io::tensor_entry& wanted = layout_.tensors()[i].entry;
      const std::string where = path_.string() + ": tensor \"" + wanted.name + "\"";
      require(i < header.tensors.size(), where, " is missing");
      const io::tensor_entry& found = header.tensors[i];
      require(found.name == wanted.name, where, ": in its place is ", io::in_quotes(found.name));
      require(found.type == wanted.type && found.shape == wanted.shape, where, " is ", name_of(found.type),
              " ", io::shape_text(found.shape), ", but config.json asks for ", name_of(wanted.type), " ",
              io::shape_text(wanted.shape));
      require(found.begin == wanted.begin, where, " begins at ", found.begin, ", not at ", wanted.begin);
    }
    require(header.tensors.size() == layout_.tensors().size(), path_.string(), ": holds ",
            header.tensors.size(), " tensors, but config.json asks for ", layout_.tensors().size());
  }

  std::filesystem::path path_;
  packed_layout layout_;
  std::shared_ptr<const io::mapped_file> mapping_;
  std::size_t data_start_ = 0;
};

}  // namespace corematching

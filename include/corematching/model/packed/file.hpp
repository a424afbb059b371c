// SPDX-License-Identifier: Apache-2.0
// A packed file of a checkpoint's language model, checked in full when it is opened. Tensors are used where
// they are mapped, so opening is all the loading there is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/packed/layout.hpp"

namespace corematching {

inline constexpr const char* packed_format = "corematching-packed";
inline constexpr const char* packed_version = "2";

/// What a packed file says of its weights where each is of the type that its GGUF file gives it.
inline constexpr const char* packed_as_stored = "as stored";

/// What weights of one type, or without one as they are stored, are called in a packed file.
inline std::string packed_weights_name(std::optional<dtype> weights) {
  return weights ? name_of(*weights) : packed_as_stored;
}

/// The type of the weights that a packed file says it holds; nothing where they are as stored. Throws `error`
/// if it is no packed file.
inline std::optional<dtype> packed_weights(const std::filesystem::path& path) {
  const auto file = io::safetensors_file::open(path);
  const auto said = file.metadata().find("weights");
  if (said != file.metadata().end() && said->second == packed_as_stored) return std::nullopt;
  const auto type = said == file.metadata().end() ? std::nullopt : dtype_named(said->second);
  require(type.has_value(), path.string(), ": is not a packed file");
  return type;
}

class packed_file {
 public:
  /// Throws `error` naming `path` unless it is a packed file of weights of type `wanted`, of the checkpoint
  /// with this identity, and with the tensors that `config` asks for.
  packed_file(std::filesystem::path path, const llama_config& config, dtype wanted,
              const std::string& identity)
      : packed_file(std::move(path), packed_layout(config, wanted), wanted, identity) {}
  /// The same where another layout is asked for; `wanted` is what packed_weights() should say.
  packed_file(std::filesystem::path path, packed_layout layout, std::optional<dtype> wanted,
              const std::string& identity)
      : path_(std::move(path)),
        layout_(std::move(layout)),
        mapping_(std::make_shared<const io::mapped_file>(io::mapped_file::open(path_))) {
    const io::safetensors_header header = io::parse_safetensors_header(mapping_->bytes(), path_.string());
    const auto said = [&](const char* key) {
      const auto found = header.metadata.find(key);
      return found == header.metadata.end() ? std::string() : found->second;
    };
    require(said("format") == packed_format, path_.string(), ": is not a packed file");
    require(said("version") == packed_version, path_.string(), ": is of version ",
            io::in_quotes(said("version")), " of the format, this program reads version ", packed_version);
    const std::string asked = packed_weights_name(wanted);
    require(said("weights") == asked, path_.string(), ": holds ", io::in_quotes(said("weights")),
            " weights, asked for are ", asked);
    require(said("checkpoint") == identity, path_.string(),
            ": was packed from a model of other numbers or other file names");
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
              " ", io::shape_text(found.shape), ", but the model's configuration asks for ",
              name_of(wanted.type), " ", io::shape_text(wanted.shape));
      require(found.begin == wanted.begin, where, " begins at ", found.begin, ", not at ", wanted.begin);
    }
    require(header.tensors.size() == layout_.tensors().size(), path_.string(), ": holds ",
            header.tensors.size(), " tensors, but the model's configuration asks for ",
            layout_.tensors().size());
  }

  std::filesystem::path path_;
  packed_layout layout_;
  std::shared_ptr<const io::mapped_file> mapping_;
  std::size_t data_start_ = 0;
};

}  // namespace corematching

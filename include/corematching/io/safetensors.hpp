// SPDX-License-Identifier: Apache-2.0
// Checkpoints in safetensors: one file, or a directory with one file or with shards and their index.
// Source: https://github.com/huggingface/safetensors; the index is that of transformers' sharded checkpoints.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "corematching/core/compiled_once.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors_header.hpp"
#include "corematching/io/tensor.hpp"

namespace corematching::io {

/// One safetensors file whose header has been checked in full. Tensors keep the file mapped after it is gone.
class safetensors_file {
 public:
  static safetensors_file open(const std::filesystem::path& path) {
    const auto mapping = std::make_shared<const mapped_file>(mapped_file::open(path));
    return parse(mapping->bytes(), path, mapping);
  }

  /// Reads a file that is already in memory; `storage` keeps `bytes` valid and may be null if they outlive
  /// every tensor. `path` names the file in messages.
  static safetensors_file parse(std::span<const std::byte> bytes, const std::filesystem::path& path,
                                std::shared_ptr<const void> storage) {
    safetensors_header header = parse_safetensors_header(bytes, path.string());
    safetensors_file file;
    file.metadata_ = std::move(header.metadata);
    const auto data = bytes.subspan(header.data_start);
    for (tensor_entry& t : header.tensors) {
      const auto begin = static_cast<std::size_t>(t.begin);
      file.tensors_.push_back({std::move(t.name), t.type, std::move(t.shape),
                               data.subspan(begin, static_cast<std::size_t>(t.end) - begin), path, storage});
    }
    return file;
  }

  /// In the order of their data.
  const std::vector<tensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::vector<tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Which shard holds which tensor: the `weight_map` of a model.safetensors.index.json.
using shard_index = std::map<std::string, std::string>;

namespace detail {

// A shard lies beside its index: anything but a plain file name could reach outside the checkpoint.
inline bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of("/\\") == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

// How much of `wanted` the two names share at their ends: high for a misspelt letter and for another prefix.
inline std::size_t shared_ends(std::string_view wanted, std::string_view name) {
  const std::size_t shorter = std::min(wanted.size(), name.size());
  const auto head = std::ranges::mismatch(wanted, name).in1 - wanted.begin();
  const auto tail =
      std::mismatch(wanted.rbegin(), wanted.rend(), name.rbegin(), name.rend()).first - wanted.rbegin();
  return std::min(shorter, static_cast<std::size_t>(head) + static_cast<std::size_t>(tail));
}

}  // namespace detail

/// Reads an index held in `text`; `file` starts every message. Throws `error` for a shard name that is not a
/// plain file name.
inline shard_index parse_shard_index(std::span<const std::byte> text, const std::string& file) {
  const json document = parse_json(text, file);
  json_object(document, file).object("weight_map");
  shard_index index;
  for (const auto& [name, shard] : document["weight_map"].items()) {
    const std::string where = file + ": weight_map " + in_quotes(name);
    require(shard.is_string(), where, " is not a string");
    const auto& shard_name = shard.get_ref<const std::string&>();
    require(detail::is_plain_file_name(shard_name), where, ": shard ", in_quotes(shard_name),
            " is not a plain file name");
    index.emplace(name, shard_name);
  }
  return index;
}

/// All tensors of a model by name.
class checkpoint {
 public:
  /// `path`: a safetensors file, or a directory with model.safetensors or model.safetensors.index.json (in
  /// this order, as transformers looks for them). Of a sharded checkpoint the index decides which tensors
  /// there are.
  template <class = compiled_once>
  static checkpoint open(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) return checkpoint(path, safetensors_file::open(path));
    const auto single = path / "model.safetensors";
    if (std::filesystem::exists(single, ignored)) return checkpoint(path, safetensors_file::open(single));
    const auto index = path / "model.safetensors.index.json";
    if (std::filesystem::exists(index, ignored)) return open_shards(path, index);
    fail(path.string(), ": holds neither model.safetensors nor model.safetensors.index.json",
         has_pickles(path) ? "; PyTorch .bin files are not read, convert them to safetensors" : "");
  }

  /// Null if there is no such tensor.
  const tensor* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  /// Throws `error` naming the checkpoint, the tensor and the nearest name that exists.
  template <class = compiled_once>
  const tensor& at(std::string_view name) const {
    if (const tensor* found = find(name)) return *found;
    const std::string near = nearest(name);
    fail(path_.string(), ": no tensor ", in_quotes(name), near.empty() ? "" : "; the nearest name is ",
         near.empty() ? "" : in_quotes(near));
  }

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  std::size_t size() const { return tensors_.size(); }
  const std::filesystem::path& path() const { return path_; }

  /// All names in alphabetical order.
  std::vector<std::string_view> names() const {
    std::vector<std::string_view> result;
    for (const auto& [name, value] : tensors_) result.push_back(name);
    return result;
  }

  /// Bytes of all tensors together.
  std::uint64_t total_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [name, value] : tensors_) sum += value.bytes.size();
    return sum;
  }

 private:
  using tensor_map = std::map<std::string, tensor, std::less<>>;

  checkpoint(std::filesystem::path path, tensor_map tensors)
      : path_(std::move(path)), tensors_(std::move(tensors)) {}
  checkpoint(std::filesystem::path path, const safetensors_file& file) : path_(std::move(path)) {
    for (const tensor& t : file.tensors()) tensors_.emplace(t.name, t);
  }

  static checkpoint open_shards(const std::filesystem::path& directory,
                                const std::filesystem::path& index_path) {
    const shard_index index = parse_shard_index(mapped_file::open(index_path).bytes(), index_path.string());
    std::map<std::string, tensor_map> shards;
    tensor_map tensors;
    for (const auto& [name, shard] : index) {
      if (!shards.contains(shard)) shards.emplace(shard, open_shard(directory / shard, index_path));
      const auto found = shards.at(shard).find(name);
      require(found != shards.at(shard).end(), index_path.string(), ": tensor ", in_quotes(name),
              " is not in ", in_quotes(shard));
      tensors.insert(*found);
    }
    return {directory, std::move(tensors)};
  }

  static tensor_map open_shard(const std::filesystem::path& shard, const std::filesystem::path& index_path) {
    std::error_code ignored;
    require(std::filesystem::exists(shard, ignored), index_path.string(), ": shard ",
            in_quotes(shard.filename().string()), " does not exist");
    return checkpoint(shard, safetensors_file::open(shard)).tensors_;
  }

  static bool has_pickles(const std::filesystem::path& directory) {
    std::error_code ignored;
    return std::filesystem::exists(directory / "pytorch_model.bin", ignored) ||
           std::filesystem::exists(directory / "pytorch_model.bin.index.json", ignored);
  }

  // Empty unless at least half of the wanted name is shared.
  std::string nearest(std::string_view wanted) const {
    std::size_t best = wanted.size() / 2;
    std::string name;
    for (const auto& [candidate, value] : tensors_) {
      const std::size_t shared = detail::shared_ends(wanted, candidate);
      if (shared <= best) continue;
      best = shared;
      name = candidate;
    }
    return name;
  }

  std::filesystem::path path_;
  tensor_map tensors_;
};

}  // namespace corematching::io

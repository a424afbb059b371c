// SPDX-License-Identifier: Apache-2.0
// A model in one GGUF file, or in several: files NAME-00001-of-0000N.gguf whose keys split.no (from 0) and
// split.count say which of how many each is. Metadata are those of the first.
//
// Source: https://github.com/ggml-org/llama.cpp (tools/gguf-split) for split files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
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
#include "corematching/io/ggml_type.hpp"
#include "corematching/io/gguf_metadata.hpp"
#include "corematching/io/gguf_tensors.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/stand_in.hpp"

namespace corematching::io {

/// One tensor of a file, row-major. Copies share the mapping.
struct gguf_tensor {
  std::string name;
  ggml_type type = ggml_type::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::filesystem::path file;
  std::shared_ptr<const void> storage;  // the mapping of the file; null where `bytes` are memory of others

  /// Takes the pages of a mapped file out of this process; they come back when they are read again.
  void give_back() const {
    if (storage != nullptr) io::give_back(bytes);
  }
};

/// The name of file `number`, from 0 on, of the `count` that a model is split into, given that of any of
/// them; empty for a name of another form.
inline std::string gguf_part_name(std::string_view name, std::int64_t number, std::int64_t count) {
  constexpr std::string_view pattern = "-00000-of-00000.gguf";
  if (name.size() <= pattern.size()) return {};
  const std::string_view tail = name.substr(name.size() - pattern.size());
  for (std::size_t i = 0; i < pattern.size(); ++i)
    if (pattern[i] == '0' ? tail[i] < '0' || tail[i] > '9' : tail[i] != pattern[i]) return {};
  char made[64];
  std::snprintf(made, sizeof made, "-%05lld-of-%05lld.gguf", static_cast<long long>(number + 1),
                static_cast<long long>(count));
  return std::string(name.substr(0, name.size() - pattern.size())) + made;
}

class gguf_file {
 public:
  /// `path`: the file, or any of those that a model is split into. Throws one-line `error`s that begin with
  /// the file concerned.
  template <class = compiled_once>
  static gguf_file open(const std::filesystem::path& path) {
    part named = read(path);
    if (named.count == 1) return gguf_file(path, std::move(named));
    const std::string name = path.filename().string();
    require(name == gguf_part_name(name, named.number, named.count), path.string(), ": says that it is file ",
            named.number + 1, " of ", named.count, ", so its name should end in ",
            gguf_part_name("M-00000-of-00000.gguf", named.number, named.count).substr(1));
    const auto path_of = [&](std::int64_t i) {
      return path.parent_path() / gguf_part_name(name, i, named.count);
    };
    gguf_file whole(path, read_part(path_of(0), 0, named.count));
    for (std::int64_t i = 1; i < named.count; ++i) whole.add(read_part(path_of(i), i, named.count));
    whole.check_count();
    return whole;
  }

  /// Reads a file that is already in memory, which must outlive every tensor, and not split. `path` names the
  /// file in messages.
  static gguf_file parse(std::span<const std::byte> bytes, const std::filesystem::path& path) {
    part all = read(bytes, path, nullptr);
    require(all.count == 1, path.string(), ": is file ", all.number + 1, " of ", all.count);
    return gguf_file(path, std::move(all));
  }

  const std::filesystem::path& path() const { return path_; }
  const gguf_metadata& metadata() const { return metadata_; }

  /// Null if there is no such tensor.
  const gguf_tensor* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }
  /// Throws `error` naming file and tensor.
  const gguf_tensor& at(std::string_view name) const {
    const gguf_tensor* const found = find(name);
    require(found != nullptr, path_.string(), ": no tensor ", in_quotes(name));
    return *found;
  }
  bool contains(std::string_view name) const { return find(name) != nullptr; }

  /// By name.
  const std::map<std::string, gguf_tensor, std::less<>>& tensors() const { return tensors_; }

  /// Bytes of all tensors together.
  std::uint64_t total_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [name, tensor] : tensors_) sum += tensor.bytes.size();
    return sum;
  }

 private:
  /// One of the files.
  struct part {
    gguf_metadata metadata;
    std::vector<gguf_tensor> tensors;
    std::shared_ptr<const void> storage;
    std::int64_t number = 0;
    std::int64_t count = 1;
  };

  static constexpr std::int64_t most_parts = 65535;

  static part read(std::span<const std::byte> bytes, const std::filesystem::path& path,
                   std::shared_ptr<const void> storage) {
    refuse_stand_in(bytes, path.string());
    part result{gguf_metadata::parse(bytes, path.string()), {}, std::move(storage)};
    for (gguf_entry& entry : parse_gguf_tensors(bytes, result.metadata))
      result.tensors.push_back({std::move(entry.name), entry.type, std::move(entry.shape),
                                bytes.subspan(entry.begin, entry.end - entry.begin), path, result.storage});
    if (result.metadata.has("split.count")) {
      result.count = result.metadata.integer("split.count", 0, most_parts);
      if (result.count == 0) result.count = 1;
    }
    if (result.count > 1) result.number = result.metadata.integer("split.no", 0, result.count - 1);
    return result;
  }

  static part read(const std::filesystem::path& path) {
    const auto mapping = std::make_shared<const mapped_file>(mapped_file::open(path));
    return read(mapping->bytes(), path, mapping);
  }

  static part read_part(const std::filesystem::path& path, std::int64_t number, std::int64_t count) {
    std::error_code ignored;
    require(std::filesystem::exists(path, ignored), path.string(), ": does not exist; it is file ",
            number + 1, " of the ", count, " that the model is split into");
    part found = read(path);
    require(found.number == number && found.count == count, path.string(), ": says that it is file ",
            found.number + 1, " of ", found.count, ", but its name says file ", number + 1, " of ", count);
    return found;
  }

  gguf_file(std::filesystem::path path, part first)
      : path_(std::move(path)), metadata_(std::move(first.metadata)), storage_(std::move(first.storage)) {
    add(std::move(first));
  }

  void add(part more) {
    for (gguf_tensor& tensor : more.tensors) {
      const auto [place, is_new] = tensors_.try_emplace(tensor.name, tensor);
      require(is_new, detail::gguf_place(tensor.file.string(), tensor.name), " is also in ",
              place->second.file.string());
    }
  }

  void check_count() const {
    if (!metadata_.has("split.tensors.count")) return;
    const std::int64_t said = metadata_.integer("split.tensors.count", 0, std::int64_t{1} << 31);
    require(static_cast<std::size_t>(said) == tensors_.size(), metadata_.file(),
            ": the files of the model have ", tensors_.size(), " tensors, but split.tensors.count is ", said);
  }

  std::filesystem::path path_;
  gguf_metadata metadata_;
  std::shared_ptr<const void> storage_;  // what metadata_ reads its texts from
  std::map<std::string, gguf_tensor, std::less<>> tensors_;
};

}  // namespace corematching::io

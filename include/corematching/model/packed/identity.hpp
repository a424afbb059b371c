// SPDX-License-Identifier: Apache-2.0
// What tells the files of a model from others, so that a packed file of one is not taken for another's.
#pragma once

#include <algorithm>
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

#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/io/safetensors_header.hpp"
#include "corematching/model/packed/checksums.hpp"

namespace corematching {

namespace detail {

/// What stands for each of a model's files: 64 bytes from the middle of every tensor, since a fine-tuned
/// model differs in nothing else. To these come the bytes in front of the data.
class file_samples {
 public:
  void add(const std::filesystem::path& file, std::span<const std::byte> tensor) {
    const auto middle = tensor.subspan(tensor.size() / 2);
    const auto sample = samples_[file].emplace_back(middle.first(std::min<std::size_t>(64, middle.size())));
    io::will_need(sample);  // all are read from the disk at once, and not one after the other
  }

  /// A line for each file: its name, its size and a checksum. header_size(bytes, path) says how many bytes
  /// are in front of the data.
  template <class HeaderSize>
  std::string text(HeaderSize&& header_size) && {
    std::string text;
    for (const auto& [path, samples] : samples_) {
      const io::mapped_file file = io::mapped_file::open(path);
      std::vector<std::byte> sample;
      for (const auto& bytes : samples) append(sample, bytes);
      append(sample, file.bytes().first(header_size(file.bytes(), path.string())));
      const std::uint64_t sum = data_checksum(sample);
      text += io::as_utf8(path.filename().string()) + " " + std::to_string(file.bytes().size()) + " " +
              checksum_text({&sum, 1}) + "\n";
    }
    return text;
  }

 private:
  static void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
  }

  std::map<std::filesystem::path, std::vector<std::span<const std::byte>>> samples_;
};

}  // namespace detail

inline std::string checkpoint_identity(const io::checkpoint& from) {
  detail::file_samples samples;
  for (const std::string_view name : from.names()) samples.add(from.at(name).file, from.at(name).bytes);
  return std::move(samples).text([](std::span<const std::byte> bytes, const std::string& path) {
    return io::parse_safetensors_header(bytes, path).data_start;
  });
}

inline std::string gguf_identity(const io::gguf_file& from) {
  detail::file_samples samples;
  for (const auto& [name, tensor] : from.tensors()) samples.add(tensor.file, tensor.bytes);
  return std::move(samples).text([](std::span<const std::byte> bytes, const std::string& path) {
    std::size_t start = bytes.size();
    for (const auto& entry : io::parse_gguf_tensors(bytes, io::gguf_metadata::parse(bytes, path)))
      start = std::min(start, entry.begin);
    return start;
  });
}

/// Of a checkpoint's directory or a GGUF file.
inline std::string model_identity(const std::filesystem::path& model) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(model, ignored)) return gguf_identity(io::gguf_file::open(model));
  return checkpoint_identity(io::checkpoint::open(model));
}

}  // namespace corematching

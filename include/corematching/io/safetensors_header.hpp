// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file, checked in full before any tensor is read.
//
// Layout: 8 bytes little-endian header length N, N bytes of JSON
//   {"__metadata__": {key: text}, name: {"dtype": D, "shape": [..], "data_offsets": [begin, end]}, ...}
// then the data, which the offsets cover without gap or overlap.
// Source: https://github.com/huggingface/safetensors (README "Format", safetensors/src/tensor.rs).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/stand_in.hpp"
#include "corematching/io/tensor.hpp"

namespace corematching::io {

inline constexpr std::uint64_t max_safetensors_header = 100'000'000;  // bytes, the reference's limit
inline constexpr std::string_view safetensors_metadata_key = "__metadata__";

/// One entry of the header; `begin` and `end` count bytes from the start of the data.
struct tensor_entry {
  std::string name;
  element_type type;
  std::vector<std::int64_t> shape;
  std::uint64_t begin;
  std::uint64_t end;
};

struct safetensors_header {
  std::map<std::string, std::string> metadata;
  std::vector<tensor_entry> tensors;  // in the order of their data
  std::size_t data_start = 0;         // bytes from the start of the file
};

/// Bytes of a tensor of this shape and type. Throws `error`, starting with `where`, if a dimension is
/// negative or the product overflows.
inline std::uint64_t tensor_bytes(std::span<const std::int64_t> shape, element_type type,
                                  const std::string& where) {
  std::uint64_t bytes = size_of(type);
  for (const std::int64_t dimension : shape) {
    require(dimension >= 0, where, ": negative dimension in shape ", shape_text(shape));
    const auto factor = static_cast<std::uint64_t>(dimension);
    require(factor == 0 || bytes <= std::uint64_t{std::numeric_limits<std::int64_t>::max()} / factor, where,
            ": the size of shape ", shape_text(shape), " overflows");
    bytes *= factor;
  }
  return bytes;
}

namespace detail {

inline constexpr std::size_t max_rank = 64;

inline std::string tensor_place(const std::string& file, std::string_view name) {
  return file + ": tensor " + in_quotes(name);
}

// The list of non-negative integers under `key`.
inline std::vector<std::int64_t> read_sizes(const json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  require(found != entry.end(), where, ": ", key, " is missing");
  require(found->is_array() && found->size() <= max_rank, where, ": ", key, " is not a list of at most ",
          max_rank, " integers");
  std::vector<std::int64_t> sizes;
  for (const json& size : *found) {
    require(size.is_number_unsigned() && std::in_range<std::int64_t>(size.get<std::uint64_t>()), where, ": ",
            key, " holds a value that is not an integer from 0 to 2^63-1");
    sizes.push_back(size.get<std::int64_t>());
  }
  return sizes;
}

inline element_type read_element_type(const json& entry, const std::string& where) {
  const auto found = entry.find("dtype");
  require(found != entry.end(), where, ": dtype is missing");
  require(found->is_string(), where, ": dtype is not a string");
  const auto& name = found->get_ref<const std::string&>();
  const auto type = element_type_named(name);
  require(type.has_value(), where, ": unknown dtype ", in_quotes(name));
  return *type;
}

inline tensor_entry read_entry(const std::string& name, const json& entry, std::uint64_t data_size,
                               const std::string& file) {
  const std::string where = tensor_place(file, name);
  require(entry.is_object(), where, ": its entry is not an object");
  const element_type type = read_element_type(entry, where);
  auto shape = read_sizes(entry, "shape", where);
  const auto offsets = read_sizes(entry, "data_offsets", where);
  require(offsets.size() == 2, where, ": data_offsets has ", offsets.size(), " values, expected 2");
  const auto begin = static_cast<std::uint64_t>(offsets[0]);
  const auto end = static_cast<std::uint64_t>(offsets[1]);
  require(begin <= end, where, ": data_offsets [", begin, ", ", end, "] are reversed");
  require(end <= data_size, where, ": data_offsets [", begin, ", ", end, "] reach beyond the ", data_size,
          " bytes of data");
  const std::uint64_t expected = tensor_bytes(shape, type, where);
  require(end - begin == expected, where, ": data_offsets span ", end - begin, " bytes, but ", name_of(type),
          " ", shape_text(shape), " takes ", expected);
  return {name, type, std::move(shape), begin, end};
}

inline std::map<std::string, std::string> read_metadata(const json& value, const std::string& file) {
  require(value.is_object(), file, ": ", safetensors_metadata_key, " is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    require(text.is_string(), file, ": ", safetensors_metadata_key, " ", in_quotes(key), " is not a string");
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

// Sorts the entries by position and checks that they cover the data from first to last byte, each once.
inline void check_coverage(std::vector<tensor_entry>& tensors, std::uint64_t data_size,
                           const std::string& file) {
  std::ranges::stable_sort(tensors, {}, [](const tensor_entry& t) { return std::tuple(t.begin, t.end); });
  std::uint64_t covered = 0;
  for (const tensor_entry& t : tensors) {
    require(t.begin >= covered, tensor_place(file, t.name), ": overlaps the tensor before it by ",
            covered - t.begin, " bytes");
    require(t.begin == covered, tensor_place(file, t.name), ": ", t.begin - covered,
            " bytes before it belong to no tensor");
    covered = t.end;
  }
  require(covered == data_size, file, ": the last ", data_size - covered, " bytes belong to no tensor");
}

// The JSON text; `bytes` is the whole file.
inline std::span<const std::byte> header_text(std::span<const std::byte> bytes, const std::string& file) {
  refuse_stand_in(bytes, file);  // whose first bytes would be an absurd length
  constexpr std::size_t prefix = 8;
  require(bytes.size() >= prefix, file, ": not a safetensors file: ", bytes.size(),
          " bytes, too short for a header");
  std::uint64_t length = 0;
  for (std::size_t i = prefix; i-- > 0;) length = (length << 8) | std::to_integer<std::uint64_t>(bytes[i]);
  require(length <= max_safetensors_header, file, ": not a safetensors file: header of ", length,
          " bytes, more than the format's limit of ", max_safetensors_header);
  require(length <= bytes.size() - prefix, file, ": truncated: header of ", length, " bytes in a file of ",
          bytes.size());
  const auto text = bytes.subspan(prefix, static_cast<std::size_t>(length));
  require(!text.empty() && text.front() == std::byte{'{'}, file,
          ": not a safetensors file: no JSON object at byte ", prefix);
  return text;
}

}  // namespace detail

/// Reads and checks the header of a file held in `bytes`. Throws one-line `error`s that start with `file` and
/// name the tensor concerned.
inline safetensors_header parse_safetensors_header(std::span<const std::byte> bytes,
                                                   const std::string& file) {
  const auto text = detail::header_text(bytes, file);
  const json document = parse_json(text, file);
  safetensors_header header;
  header.data_start = static_cast<std::size_t>(text.data() + text.size() - bytes.data());
  const std::uint64_t data_size = bytes.size() - header.data_start;
  for (const auto& [name, value] : document.items()) {
    if (name == safetensors_metadata_key)
      header.metadata = detail::read_metadata(value, file);
    else
      header.tensors.push_back(detail::read_entry(name, value, data_size, file));
  }
  detail::check_coverage(header.tensors, data_size, file);
  return header;
}

}  // namespace corematching::io

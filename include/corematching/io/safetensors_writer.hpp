// SPDX-License-Identifier: Apache-2.0
// Writes safetensors files: whole or not at all, laid out as the reference writes them.
// Source: https://github.com/huggingface/safetensors (safetensors/src/tensor.rs, `prepare` and `serialize`).
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/output_file.hpp"
#include "corematching/io/safetensors_header.hpp"
#include "corematching/io/tensor.hpp"

namespace corematching::io {

/// A tensor to write; `bytes` are its elements, row-major and little-endian.
struct named_tensor {
  std::string name;
  element_type type = element_type::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// The element type that stores values of type `T`; does not compile for a type that the format lacks.
template <class T>
consteval element_type element_type_of() {
  if constexpr (std::same_as<T, float>) return element_type::f32;
  if constexpr (std::same_as<T, double>) return element_type::f64;
  if constexpr (std::same_as<T, corematching::f16>) return element_type::f16;
  if constexpr (std::same_as<T, corematching::bf16>) return element_type::bf16;
  if constexpr (std::same_as<T, std::int64_t>) return element_type::i64;
  if constexpr (std::same_as<T, std::int32_t>) return element_type::i32;
  if constexpr (std::same_as<T, std::int8_t>) return element_type::i8;
  if constexpr (std::same_as<T, std::uint8_t>) return element_type::u8;
}

/// `values` (a vector, array or span that outlives the result) under a name, row-major in `shape`.
template <std::ranges::contiguous_range Values>
named_tensor as_tensor(std::string name, std::vector<std::int64_t> shape, const Values& values) {
  using value_type = std::ranges::range_value_t<Values>;
  const std::span<const value_type> elements(std::ranges::data(values), std::ranges::size(values));
  return {std::move(name), element_type_of<value_type>(), std::move(shape), std::as_bytes(elements)};
}

namespace detail {

inline void check_tensor(const named_tensor& t, const std::string& file) {
  const std::string where = tensor_place(file, t.name);
  require(t.name != safetensors_metadata_key, where, ": the format reserves this name");
  require(t.shape.size() <= max_rank, where, ": more than ", max_rank, " dimensions");
  const std::uint64_t expected = tensor_bytes(t.shape, t.type, where);
  require(t.bytes.size() == expected, where, ": ", t.bytes.size(), " bytes, but ", name_of(t.type), " ",
          shape_text(t.shape), " takes ", expected);
}

// Widest elements first, so that every tensor is aligned; then by name.
inline std::vector<const named_tensor*> data_order(std::span<const named_tensor> tensors) {
  std::vector<const named_tensor*> order;
  for (const named_tensor& t : tensors) order.push_back(&t);
  std::ranges::sort(order, {}, [](const named_tensor* t) {
    return std::pair(-static_cast<int>(size_of(t->type)), std::string_view(t->name));
  });
  return order;
}

}  // namespace detail

/// Length prefix and JSON of a file whose tensors lie as `entries` say, padded with spaces so that the data
/// start at a multiple of `alignment` bytes, itself a multiple of 8. Throws `error` starting with `file`.
inline std::string safetensors_header_bytes(std::span<const tensor_entry> entries,
                                            const std::map<std::string, std::string>& metadata,
                                            const std::string& file, std::size_t alignment = 8) {
  constexpr std::size_t prefix = 8;
  json header = json::object();
  if (!metadata.empty()) header[safetensors_metadata_key] = metadata;
  for (const tensor_entry& t : entries) {
    if (header.contains(t.name)) fail(detail::tensor_place(file, t.name), ": two tensors of this name");
    header[t.name] = {{"dtype", name_of(t.type)}, {"shape", t.shape}, {"data_offsets", {t.begin, t.end}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::type_error&) {
    fail(file, ": a tensor name or metadata text is not valid UTF-8");
  }
  text.resize((prefix + text.size() + alignment - 1) / alignment * alignment - prefix, ' ');
  require(text.size() <= max_safetensors_header, file, ": header of ", text.size(),
          " bytes, more than the format's limit of ", max_safetensors_header);
  std::string length;
  for (unsigned shift = 0; shift < 8 * prefix; shift += 8)
    length.push_back(static_cast<char>((std::uint64_t{text.size()} >> shift) & 0xff));
  return length + text;
}

/// Writes `tensors` to `path`, replacing a file of that name only once everything is written. Throws `error`
/// naming the file, and the tensor whose name or size is at fault; nothing is left behind then.
inline void write_safetensors(const std::filesystem::path& path, std::span<const named_tensor> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  for (const named_tensor& t : tensors) detail::check_tensor(t, path.string());
  const auto order = detail::data_order(tensors);
  std::vector<tensor_entry> entries;
  std::uint64_t position = 0;
  for (const named_tensor* t : order) {
    const std::uint64_t begin = std::exchange(position, position + t->bytes.size());
    entries.push_back({t->name, t->type, t->shape, begin, position});
  }
  const std::string header = safetensors_header_bytes(entries, metadata, path.string());
  output_file file(path);
  file.write(std::as_bytes(std::span(header)));
  for (const named_tensor* t : order) file.write(t->bytes);
  file.commit();
}

}  // namespace corematching::io

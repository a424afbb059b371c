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

// Length prefix and JSON, padded with spaces so that the data start at a multiple of 8 bytes.
inline std::string header_bytes(const std::vector<const named_tensor*>& order,
                                const std::map<std::string, std::string>& metadata, const std::string& file) {
  json header = json::object();
  if (!metadata.empty()) header[safetensors_metadata_key] = metadata;
  std::uint64_t position = 0;
  for (const named_tensor* t : order) {
    if (header.contains(t->name)) fail(tensor_place(file, t->name), ": two tensors of this name");
    const std::uint64_t end = position + t->bytes.size();
    header[t->name] = {{"dtype", name_of(t->type)}, {"shape", t->shape}, {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::type_error&) {
    fail(file, ": a tensor name or metadata text is not valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  require(text.size() <= max_safetensors_header, file, ": header of ", text.size(),
          " bytes, more than the format's limit of ", max_safetensors_header);
  std::string length;
  for (unsigned shift = 0; shift < 64; shift += 8)
    length.push_back(static_cast<char>((std::uint64_t{text.size()} >> shift) & 0xff));
  return length + text;
}

}  // namespace detail

/// Writes `tensors` to `path`, replacing a file of that name only once everything is written. Throws `error`
/// naming the file, and the tensor whose name or size is at fault; nothing is left behind then.
inline void write_safetensors(const std::filesystem::path& path, std::span<const named_tensor> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  for (const named_tensor& t : tensors) detail::check_tensor(t, path.string());
  const auto order = detail::data_order(tensors);
  const std::string header = detail::header_bytes(order, metadata, path.string());
  output_file file(path);
  file.write(std::as_bytes(std::span(header)));
  for (const named_tensor* t : order) file.write(t->bytes);
  file.commit();
}

}  // namespace corematching::io

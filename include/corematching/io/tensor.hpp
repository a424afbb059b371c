// SPDX-License-Identifier: Apache-2.0
// A tensor as a file stores it: name, element type, shape and bytes that stay mapped as long as it lives.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"

namespace corematching::io {

/// The element types of the safetensors format whose elements are whole bytes.
enum class element_type : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64,
  c64
};

namespace detail {

struct element_traits {
  std::string_view name;  // as the format spells it
  std::size_t size;       // bytes of one element
};

// In the order of element_type.
inline constexpr std::array<element_traits, 17> element_table{{{"BOOL", 1},
                                                               {"U8", 1},
                                                               {"I8", 1},
                                                               {"F8_E5M2", 1},
                                                               {"F8_E4M3", 1},
                                                               {"F8_E8M0", 1},
                                                               {"U16", 2},
                                                               {"I16", 2},
                                                               {"F16", 2},
                                                               {"BF16", 2},
                                                               {"U32", 4},
                                                               {"I32", 4},
                                                               {"F32", 4},
                                                               {"U64", 8},
                                                               {"I64", 8},
                                                               {"F64", 8},
                                                               {"C64", 8}}};

}  // namespace detail

constexpr std::size_t size_of(element_type type) {
  return detail::element_table[static_cast<std::size_t>(type)].size;
}

/// The name as the safetensors format spells it, for example "BF16".
constexpr std::string_view name_of(element_type type) {
  return detail::element_table[static_cast<std::size_t>(type)].name;
}

/// The inverse of `name_of`; nothing for a name that it never returns.
constexpr std::optional<element_type> element_type_named(std::string_view name) {
  for (std::size_t i = 0; i < detail::element_table.size(); ++i)
    if (detail::element_table[i].name == name) return static_cast<element_type>(i);
  return std::nullopt;
}

/// A shape as text, for messages: "[2, 3]".
inline std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// One tensor of a file, row-major. Copies share the mapping.
struct tensor {
  std::string name;
  element_type type = element_type::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::filesystem::path file;
  std::shared_ptr<const void> storage;  // keeps `bytes` valid

  /// Whether `bytes` may be read in place as elements of `type`. The format does not promise it: consumers
  /// copy when it is false.
  bool is_aligned() const { return reinterpret_cast<std::uintptr_t>(bytes.data()) % size_of(type) == 0; }
};

/// What rows of `type` are made of in a file; bytes for the block formats.
constexpr element_type stored_elements(dtype type) {
  switch (type) {
    case dtype::f32: return element_type::f32;
    case dtype::f16: return element_type::f16;
    case dtype::bf16: return element_type::bf16;
    default: return element_type::u8;
  }
}

/// The dtype of a tensor that holds weights. Throws `error` naming file and tensor for any other element
/// type.
inline dtype weight_dtype(const tensor& weights) {
  for (const dtype type : element_types)
    if (stored_elements(type) == weights.type) return type;
  fail(weights.file.string(), ": tensor \"", weights.name, "\" is ", name_of(weights.type),
       ", expected F32, F16 or BF16");
}

}  // namespace corematching::io

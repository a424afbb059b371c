// SPDX-License-Identifier: Apache-2.0
// Storage types of weights and caches: IEEE binary32, binary16, bfloat16, and two of ggml's block formats,
// whose layout and rounding stand in corematching/core/quantised.hpp. Sums are always formed in binary32.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "corematching/core/error.hpp"

namespace corematching {

enum class dtype : std::uint8_t { f32, f16, bf16, q8_0, q4_0 };

/// Consecutive weights of a row that share one scale in the block formats.
inline constexpr std::ptrdiff_t block_size = 32;

/// Whether rows are made of blocks: their length must then be a multiple of block_size.
constexpr bool is_quantised(dtype type) {
  return type == dtype::q8_0 || type == dtype::q4_0;
}

/// Bytes of `elements` consecutive elements; whole blocks in the block formats.
constexpr std::size_t bytes_of(dtype type, std::size_t elements) {
  constexpr std::size_t block = block_size, scale = 2;
  switch (type) {
    case dtype::f32: return 4 * elements;
    case dtype::f16:
    case dtype::bf16: return 2 * elements;
    case dtype::q8_0: return elements / block * (block + scale);
    case dtype::q4_0: return elements / block * (block / 2 + scale);
  }
  return 0;
}

constexpr const char* name_of(dtype type) {
  switch (type) {
    case dtype::f32: return "f32";
    case dtype::f16: return "f16";
    case dtype::bf16: return "bf16";
    case dtype::q8_0: return "q8_0";
    case dtype::q4_0: return "q4_0";
  }
  return "?";
}

/// The inverse of name_of; nothing for a name that it never returns.
constexpr std::optional<dtype> dtype_named(std::string_view name) {
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_0})
    if (name == name_of(type)) return type;
  return std::nullopt;
}

/// IEEE 754 binary16, as storage.
struct f16 {
  std::uint16_t bits;
};

/// The upper half of a binary32, as storage.
struct bf16 {
  std::uint16_t bits;
};

constexpr float to_float(float value) {
  return value;
}

constexpr float to_float(bf16 value) {
  return std::bit_cast<float>(std::uint32_t{value.bits} << 16);
}

/// Exact: every binary16 is a binary32. Subnormals are rebuilt by one subtraction of an exact power of two.
constexpr float to_float(f16 value) {
  const std::uint32_t sign = std::uint32_t{value.bits & 0x8000u} << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float scaled =
      std::bit_cast<float>((113u << 23) | (magnitude << 13)) - std::bit_cast<float>(113u << 23);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(scaled));
}

/// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
constexpr bf16 to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Rounds to the nearest binary16, ties to even; values beyond its range become infinite, NaN stays NaN.
constexpr f16 to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x47800000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Adding 0.5 makes the binary32 adder round at binary16's subnormal step, 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23);
  return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

/// Names of the block formats where a type is asked for; a row of theirs is no array of elements.
struct q8_0 {};
struct q4_0 {};

template <class T>
concept block_format = std::same_as<T, q8_0> || std::same_as<T, q4_0>;

template <class T>
inline constexpr dtype dtype_of = dtype::f32;
template <>
inline constexpr dtype dtype_of<f16> = dtype::f16;
template <>
inline constexpr dtype dtype_of<bf16> = dtype::bf16;
template <>
inline constexpr dtype dtype_of<q8_0> = dtype::q8_0;
template <>
inline constexpr dtype dtype_of<q4_0> = dtype::q4_0;

/// Calls `body` with a null pointer of the type that `type` names, for types whose rows are arrays of
/// elements; the others are an error.
template <class Body>
decltype(auto) visit_elements(dtype type, Body&& body) {
  switch (type) {
    case dtype::f32: return body(static_cast<const float*>(nullptr));
    case dtype::f16: return body(static_cast<const f16*>(nullptr));
    case dtype::bf16: return body(static_cast<const bf16*>(nullptr));
    case dtype::q8_0:
    case dtype::q4_0: fail(name_of(type), " has blocks of weights where elements are needed");
  }
  fail("unknown dtype");
}

/// The same for all types, block formats by their names.
template <class Body>
decltype(auto) visit_dtype(dtype type, Body&& body) {
  if (type == dtype::q8_0) return body(static_cast<const q8_0*>(nullptr));
  if (type == dtype::q4_0) return body(static_cast<const q4_0*>(nullptr));
  return visit_elements(type, body);
}

}  // namespace corematching

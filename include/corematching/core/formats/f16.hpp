// SPDX-License-Identifier: Apache-2.0
// IEEE 754 binary16.
#pragma once

#include <bit>
#include <cstdint>

#include "corematching/core/formats/traits.hpp"

namespace corematching {

/// A binary16, as storage.
struct f16 {
  std::uint16_t bits;
};

template <>
struct format_traits<f16> : element_traits<f16> {
  static constexpr const char* name = "f16";
  static constexpr float largest = 65504;
};

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

}  // namespace corematching

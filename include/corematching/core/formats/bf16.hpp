// SPDX-License-Identifier: Apache-2.0
// bfloat16.
#pragma once

#include <bit>
#include <cstdint>

#include "corematching/core/formats/traits.hpp"

namespace corematching {

/// The upper half of a binary32, as storage.
struct bf16 {
  std::uint16_t bits;
};

constexpr float to_float(bf16 value) {
  return std::bit_cast<float>(std::uint32_t{value.bits} << 16);
}

template <>
struct format_traits<bf16> : element_traits<bf16> {
  static constexpr const char* name = "bf16";
  static constexpr float largest = to_float(bf16{0x7f7f});
};

/// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
constexpr bf16 to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace corematching

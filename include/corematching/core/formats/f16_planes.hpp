// SPDX-License-Identifier: Apache-2.0
// f16 in two planes of bytes: sign, exponent and the first two bits of the fraction, and its other eight
// bits.
#pragma once

#include <array>
#include <cstdint>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/traits.hpp"

namespace corematching {

struct f16_planes : number_planes<f16> {
  /// The lower byte that stands in the middle of all of them. With it an infinity is read as NaN, which no
  /// finite weight becomes.
  static constexpr std::uint8_t middle_byte = 0x80;

  static constexpr std::array<std::uint8_t, 2> split(f16 value) {
    return {static_cast<std::uint8_t>(value.bits >> 8), static_cast<std::uint8_t>(value.bits & 255)};
  }
  static constexpr f16 merged(std::uint8_t upper, std::uint8_t lower) {
    return {static_cast<std::uint16_t>(upper << 8 | lower)};
  }
  static constexpr f16 middle(std::uint8_t upper) { return merged(upper, middle_byte); }

  static constexpr f16 narrowed(float value) { return to_f16(value); }
};

template <>
struct format_traits<f16_planes> : plane_traits<f16_planes> {
  static constexpr const char* name = "f16_planes";
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// binary16 and bfloat16 to and from binary32, with the NaNs that a device gives. Written apart from the
// library's conversions, which are compared with these.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace cuda_emulator::detail {

inline float from_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : std::bit_cast<float>(0x7fffffffu);
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-24f;
  const std::uint32_t magnitude = static_cast<std::uint32_t>((exponent + 112) << 23 | mantissa << 13);
  return sign * std::bit_cast<float>(magnitude);
}

inline std::uint16_t to_half(float value) {
  if (std::isnan(value)) return 0x7fff;
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00);
  // In units of the last place, which std::rint rounds to even. A carry runs on into the exponent.
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const int units = static_cast<int>(std::rint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign | (units + (exponent + 14) * 1024));
}

inline float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t to_bfloat16(float value) {
  if (std::isnan(value)) return 0x7fff;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t lower = bits & 0xffff, upper = bits >> 16;
  const bool up = lower > 0x8000 || (lower == 0x8000 && upper % 2 == 1);
  return static_cast<std::uint16_t>(upper + (up ? 1 : 0));
}

}  // namespace cuda_emulator::detail

// SPDX-License-Identifier: Apache-2.0
// f32x8.hpp in an array: the meaning of every operation, and the path of processors for which no other is
// written.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"

#if !COREMATCHING_HAS_SIMD

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct f32x8 {
  float lanes[8];

  static f32x8 zero() { return broadcast(0); }
  static f32x8 broadcast(float value) { return {{value, value, value, value, value, value, value, value}}; }
  static f32x8 broadcast(f16 value) { return broadcast(to_float(value)); }
  template <class T>
  static f32x8 load(const T* from) {
    f32x8 result;
    for (int i = 0; i < 8; ++i) result.lanes[i] = to_float(from[i]);
    return result;
  }
  /// Binary16 numbers whose upper and lower bytes stand apart.
  static f32x8 load_bytes(const std::uint8_t* upper, const std::uint8_t* lower) {
    f32x8 result;
    for (int i = 0; i < 8; ++i)
      result.lanes[i] = to_float(f16{static_cast<std::uint16_t>(upper[i] << 8 | lower[i])});
    return result;
  }
  /// The same where all have this lower byte.
  static f32x8 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    const std::uint8_t lowers[] = {lower, lower, lower, lower, lower, lower, lower, lower};
    return load_bytes(upper, lowers);
  }
  static f32x8 load(const std::int8_t* from) {
    f32x8 result;
    for (int i = 0; i < 8; ++i) result.lanes[i] = static_cast<float>(from[i]);
    return result;
  }
  void store(float* to) const {
    for (int i = 0; i < 8; ++i) to[i] = lanes[i];
  }
  void store(f16* to) const {
    for (int i = 0; i < 8; ++i) to[i] = to_f16(lanes[i]);
  }

  /// a * b + c; without a fused instruction the product is rounded too.
  friend f32x8 fma(f32x8 a, f32x8 b, f32x8 c) {
    for (int i = 0; i < 8; ++i) c.lanes[i] += a.lanes[i] * b.lanes[i];
    return c;
  }
  friend f32x8 operator+(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] += b.lanes[i];
    return a;
  }
  friend f32x8 operator-(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] -= b.lanes[i];
    return a;
  }
  friend f32x8 operator*(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] *= b.lanes[i];
    return a;
  }
  friend f32x8 operator/(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] /= b.lanes[i];
    return a;
  }
  /// The larger and the smaller of two values; NaN where b is.
  friend f32x8 larger(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] = a.lanes[i] > b.lanes[i] ? a.lanes[i] : b.lanes[i];
    return a;
  }
  friend f32x8 smaller(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i) a.lanes[i] = a.lanes[i] < b.lanes[i] ? a.lanes[i] : b.lanes[i];
    return a;
  }
  /// To the nearest integer, ties to even.
  f32x8 rounded() const {
    f32x8 result;
    for (int i = 0; i < 8; ++i) result.lanes[i] = std::nearbyint(lanes[i]);
    return result;
  }
  /// a * 2^n for integers n <= 128; maybe 0 where n < -126.
  friend f32x8 scaled_by_power(f32x8 a, f32x8 n) {
    for (int i = 0; i < 8; ++i) {
      const int biased = n.lanes[i] > -127 ? static_cast<int>(n.lanes[i]) + 127 : 0;
      a.lanes[i] *= std::bit_cast<float>(static_cast<std::int32_t>(biased << 23));
    }
    return a;
  }
  /// The larger of values without sign, where NaN is larger than infinity.
  friend f32x8 larger_magnitude(f32x8 a, f32x8 b) {
    for (int i = 0; i < 8; ++i)
      if (b.lanes[i] > a.lanes[i] || b.lanes[i] != b.lanes[i]) a.lanes[i] = b.lanes[i];
    return a;
  }
  f32x8 magnitude() const {
    f32x8 result;
    for (int i = 0; i < 8; ++i) result.lanes[i] = std::fabs(lanes[i]);
    return result;
  }

  float sum() const {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }
  /// The largest of values without sign, NaN if there is one.
  float largest_magnitude() const {
    float result = lanes[0];
    for (const float lane : lanes)
      if (lane > result || lane != lane) result = lane;
    return result;
  }
};

/// Would ask for the cache line of an address.
inline void prefetch(const void*) {}
inline void prefetch_far(const void*) {}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

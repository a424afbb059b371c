// SPDX-License-Identifier: Apache-2.0
// Sixteen binary32 lanes: one register of AVX-512, two f32x8 elsewhere. For kernels whose unit of work is
// sixteen rows or columns, whatever the registers are.
#pragma once

#include <cstdint>

#include "corematching/backend/cpu/simd/avx512.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

#if !COREMATCHING_HAS_AVX512

struct f32x16 {
  f32x8 low, high;

  static f32x16 zero() { return {f32x8::zero(), f32x8::zero()}; }
  static f32x16 broadcast(float value) {
    const f32x8 half = f32x8::broadcast(value);
    return {half, half};
  }
  template <class T>
  static f32x16 load(const T* from) {
    return {f32x8::load(from), f32x8::load(from + 8)};
  }
  /// Binary16 numbers whose upper and lower bytes stand apart.
  static f32x16 load_bytes(const std::uint8_t* upper, const std::uint8_t* lower) {
    return {f32x8::load_bytes(upper, lower), f32x8::load_bytes(upper + 8, lower + 8)};
  }
  /// The same where all have this lower byte.
  static f32x16 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    return {f32x8::load_bytes(upper, lower), f32x8::load_bytes(upper + 8, lower)};
  }
  float sum() const { return (low + high).sum(); }
  void store(float* to) const {
    low.store(to);
    high.store(to + 8);
  }

  friend f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)};
  }
  friend f32x16 operator+(f32x16 a, f32x16 b) { return {a.low + b.low, a.high + b.high}; }
  friend f32x16 operator-(f32x16 a, f32x16 b) { return {a.low - b.low, a.high - b.high}; }
  friend f32x16 operator*(f32x16 a, f32x16 b) { return {a.low * b.low, a.high * b.high}; }
  friend f32x16 operator/(f32x16 a, f32x16 b) { return {a.low / b.low, a.high / b.high}; }
  friend f32x16 larger(f32x16 a, f32x16 b) { return {larger(a.low, b.low), larger(a.high, b.high)}; }
  friend f32x16 smaller(f32x16 a, f32x16 b) { return {smaller(a.low, b.low), smaller(a.high, b.high)}; }
  f32x16 rounded() const { return {low.rounded(), high.rounded()}; }
  friend f32x16 scaled_by_power(f32x16 a, f32x16 n) {
    return {scaled_by_power(a.low, n.low), scaled_by_power(a.high, n.high)};
  }
};

#endif

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

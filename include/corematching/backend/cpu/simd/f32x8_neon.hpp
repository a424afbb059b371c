// SPDX-License-Identifier: Apache-2.0
// f32x8.hpp in pairs of NEON registers. Run on an emulator of AArch64 only, never timed.
#pragma once

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"

#if COREMATCHING_HAS_NEON

#include <arm_neon.h>

#include <bit>
#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct f32x8 {
  float32x4_t low, high;

  static f32x8 zero() { return broadcast(0); }
  static f32x8 broadcast(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
  static f32x8 broadcast(f16 value) {
    const float32x4_t half = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value.bits)));
    return {half, half};
  }
  static f32x8 load(const float* from) { return {vld1q_f32(from), vld1q_f32(from + 4)}; }
  static f32x8 load(const f16* from) { return of_halves(vld1q_u16(&from->bits)); }
  /// Binary16 numbers whose upper and lower bytes stand apart.
  static f32x8 load_bytes(const std::uint8_t* upper, const std::uint8_t* lower) {
    return of_halves(vaddw_u8(vshll_n_u8(vld1_u8(upper), 8), vld1_u8(lower)));
  }
  /// The same where all have this lower byte.
  static f32x8 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    return of_halves(vaddw_u8(vshll_n_u8(vld1_u8(upper), 8), vdup_n_u8(lower)));
  }
  static f32x8 load(const bf16* from) {
    const uint16x8_t upper = vld1q_u16(&from->bits);
    return {vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vget_low_u16(upper)), 16)),
            vreinterpretq_f32_u32(vshlq_n_u32(vmovl_high_u16(upper), 16))};
  }
  static f32x8 load(const std::int8_t* from) {
    const int16x8_t wide = vmovl_s8(vld1_s8(from));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
  }
  void store(float* to) const {
    vst1q_f32(to, low);
    vst1q_f32(to + 4, high);
  }
  void store(f16* to) const {
    vst1q_u16(&to->bits, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(low), high)));
  }

  /// a * b + c, rounded once.
  friend f32x8 fma(f32x8 a, f32x8 b, f32x8 c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  friend f32x8 operator+(f32x8 a, f32x8 b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
  friend f32x8 operator-(f32x8 a, f32x8 b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
  friend f32x8 operator*(f32x8 a, f32x8 b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
  friend f32x8 operator/(f32x8 a, f32x8 b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
  /// The larger and the smaller of two values; NaN where b is.
  friend f32x8 larger(f32x8 a, f32x8 b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
  friend f32x8 smaller(f32x8 a, f32x8 b) { return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
  /// To the nearest integer, ties to even.
  f32x8 rounded() const { return {vrndnq_f32(low), vrndnq_f32(high)}; }
  /// a * 2^n for integers n <= 128; maybe 0 where n < -126.
  friend f32x8 scaled_by_power(f32x8 a, f32x8 n) {
    return {vmulq_f32(a.low, power_of_two(n.low)), vmulq_f32(a.high, power_of_two(n.high))};
  }
  f32x8 magnitude() const { return {vabsq_f32(low), vabsq_f32(high)}; }
  /// The larger of values without sign, where NaN is larger than infinity: their bits, compared as integers.
  friend f32x8 larger_magnitude(f32x8 a, f32x8 b) {
    return {larger_bits(a.low, b.low), larger_bits(a.high, b.high)};
  }

  float sum() const {
    const float32x4_t quad = vaddq_f32(low, high);
    return vaddv_f32(vadd_f32(vget_low_f32(quad), vget_high_f32(quad)));
  }
  /// The largest of values without sign, NaN if there is one.
  float largest_magnitude() const {
    return std::bit_cast<float>(vmaxvq_s32(vreinterpretq_s32_f32(larger_bits(low, high))));
  }

 private:
  static f32x8 of_halves(uint16x8_t bits) {
    const float16x8_t halves = vreinterpretq_f16_u16(bits);
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
  }
  static float32x4_t power_of_two(float32x4_t n) {
    const int32x4_t biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(vmaxq_s32(biased, vdupq_n_s32(0)), 23));
  }
  static float32x4_t larger_bits(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b)));
  }
};

/// Asks for the cache line of `address`; never faults.
inline void prefetch(const void* address) {
  COREMATCHING_KEEP();
  __builtin_prefetch(address);
}
/// As far as the second level of caches.
inline void prefetch_far(const void* address) {
  COREMATCHING_KEEP();
  __builtin_prefetch(address, 0, 2);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

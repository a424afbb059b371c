// SPDX-License-Identifier: Apache-2.0
// i16x16.hpp in NEON registers, with the dot product of bytes where the compiler targets it. Run on an
// emulator of AArch64 only, never timed. Bytes that pair up in a lane do so in little-endian order.
#pragma once

#include "corematching/backend/cpu/simd/f32x8.hpp"

#if COREMATCHING_HAS_NEON

#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct i32x8 {
  int32x4_t low, high;

  static i32x8 zero() { return broadcast(0); }
  static i32x8 broadcast(std::int32_t value) { return {vdupq_n_s32(value), vdupq_n_s32(value)}; }
  /// To the nearest integer, ties to even.
  static i32x8 rounded(f32x8 x) { return {vcvtnq_s32_f32(x.low), vcvtnq_s32_f32(x.high)}; }
  void store(std::int32_t* to) const {
    vst1q_s32(to, low);
    vst1q_s32(to + 4, high);
  }
  f32x8 to_float() const { return {vcvtq_f32_s32(low), vcvtq_f32_s32(high)}; }
  template <int Bits>
  i32x8 shifted_left() const {
    return {vshlq_n_s32(low, Bits), vshlq_n_s32(high, Bits)};
  }

  friend i32x8 operator+(i32x8 a, i32x8 b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
  friend i32x8 operator*(i32x8 a, i32x8 b) { return {vmulq_s32(a.low, b.low), vmulq_s32(a.high, b.high)}; }
  /// Both halves of each lane = the lower half.
  i32x8 doubled() const { return {vsliq_n_s32(low, low, 16), vsliq_n_s32(high, high, 16)}; }
  /// The lower halves of lanes: the lower bytes of `a` and `b`.
  friend i32x8 byte_pairs(i32x8 a, i32x8 b) {
    return {vsliq_n_s32(a.low, b.low, 8), vsliq_n_s32(a.high, b.high, 8)};
  }
  void pin() {
    COREMATCHING_PIN(low);
    COREMATCHING_PIN(high);
  }
};

struct i16x16 {
  int16x8_t low, high;

  static i16x16 load(const std::int16_t* from) { return {vld1q_s16(from), vld1q_s16(from + 8)}; }
  /// Thirty-two bytes, two in each lane.
  static i16x16 load_bytes(const std::uint8_t* from) {
    return {vreinterpretq_s16_u8(vld1q_u8(from)), vreinterpretq_s16_u8(vld1q_u8(from + 16))};
  }
  /// The pair of neighbours (low half, high half of `pair`) eight times.
  static i16x16 broadcast_pair(std::int32_t pair) {
    const int16x8_t half = vreinterpretq_s16_s32(vdupq_n_s32(pair));
    return {half, half};
  }
  static i16x16 broadcast(std::int16_t value) { return {vdupq_n_s16(value), vdupq_n_s16(value)}; }
  void store(std::int16_t* to) const {
    vst1q_s16(to, low);
    vst1q_s16(to + 8, high);
  }
  static i16x16 zero() { return broadcast(0); }
  /// Of thirty-two signed bytes those at even places, and at odd places, times 256.
  static i16x16 even_bytes(i16x16 bytes) { return {vshlq_n_s16(bytes.low, 8), vshlq_n_s16(bytes.high, 8)}; }
  static i16x16 odd_bytes(i16x16 bytes) {
    const int16x8_t upper = vdupq_n_s16(static_cast<std::int16_t>(0xff00));
    return {vandq_s16(bytes.low, upper), vandq_s16(bytes.high, upper)};
  }
  /// round(a b / 2^15)
  friend i16x16 multiply_high(i16x16 a, i16x16 b) {
    return {vqrdmulhq_s16(a.low, b.low), vqrdmulhq_s16(a.high, b.high)};
  }
  friend i16x16 operator+(i16x16 a, i16x16 b) { return {vaddq_s16(a.low, b.low), vaddq_s16(a.high, b.high)}; }
  friend i16x16 operator-(i16x16 a, i16x16 b) { return {vsubq_s16(a.low, b.low), vsubq_s16(a.high, b.high)}; }
  f32x8 first_to_float() const { return to_float(low); }
  f32x8 last_to_float() const { return to_float(high); }
  /// even[0], odd[0], even[1], odd[1], ...: the first sixteen of them, and the last.
  friend i16x16 interleaved_first(i16x16 even, i16x16 odd) {
    return {vzip1q_s16(even.low, odd.low), vzip2q_s16(even.low, odd.low)};
  }
  friend i16x16 interleaved_last(i16x16 even, i16x16 odd) {
    return {vzip1q_s16(even.high, odd.high), vzip2q_s16(even.high, odd.high)};
  }
  /// The lower and the upper four bits of each lane, of which only the lower eight are set.
  i16x16 low_nibbles() const { return {vandq_s16(low, vdupq_n_s16(15)), vandq_s16(high, vdupq_n_s16(15))}; }
  i16x16 high_nibbles() const { return {vshrq_n_s16(low, 4), vshrq_n_s16(high, 4)}; }
  template <int Bits>
  i16x16 shifted_left() const {
    return {vshlq_n_s16(low, Bits), vshlq_n_s16(high, Bits)};
  }
  /// Zeros come from above.
  template <int Bits>
  i16x16 shifted_right() const {
    const auto shifted = [](int16x8_t half) {
      return vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_s16(half), Bits));
    };
    return {shifted(low), shifted(high)};
  }
  friend i16x16 operator&(i16x16 a, i16x16 b) { return {vandq_s16(a.low, b.low), vandq_s16(a.high, b.high)}; }
  friend i16x16 operator|(i16x16 a, i16x16 b) { return {vorrq_s16(a.low, b.low), vorrq_s16(a.high, b.high)}; }

  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]. Neighbours are parted before they are multiplied: of a
  /// factor that meets several others, once for all of them.
  friend i32x8 multiply_add_pairs(i16x16 a, i16x16 b, i32x8 c) {
    const int16x8_t even_a = vuzp1q_s16(a.low, a.high), even_b = vuzp1q_s16(b.low, b.high);
    const int16x8_t odd_a = vuzp2q_s16(a.low, a.high), odd_b = vuzp2q_s16(b.low, b.high);
    const int32x4_t low = vmlal_s16(c.low, vget_low_s16(even_a), vget_low_s16(even_b));
    const int32x4_t high = vmlal_high_s16(c.high, even_a, even_b);
    return {vmlal_s16(low, vget_low_s16(odd_a), vget_low_s16(odd_b)), vmlal_high_s16(high, odd_a, odd_b)};
  }

 private:
  static f32x8 to_float(int16x8_t half) {
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(half))), vcvtq_f32_s32(vmovl_high_s16(half))};
  }
};

/// Thirty-two bytes.
struct i8x32 {
  int8x16_t low, high;

  static i8x32 load(const std::int8_t* from) { return {vld1q_s8(from), vld1q_s8(from + 16)}; }
  /// Four bytes, eight times.
  static i8x32 broadcast(std::int32_t bytes) {
    const int8x16_t half = vreinterpretq_s8_s32(vdupq_n_s32(bytes));
    return {half, half};
  }
  static i8x32 load(const std::uint8_t* from) {
    return {vreinterpretq_s8_u8(vld1q_u8(from)), vreinterpretq_s8_u8(vld1q_u8(from + 16))};
  }
  static i8x32 broadcast(std::uint8_t value) {
    const int8x16_t half = vreinterpretq_s8_u8(vdupq_n_u8(value));
    return {half, half};
  }
  void store(std::uint8_t* to) const {
    vst1q_u8(to, vreinterpretq_u8_s8(low));
    vst1q_u8(to + 16, vreinterpretq_u8_s8(high));
  }
  /// What leaves a byte may enter its neighbour; here it does not.
  template <int Bits>
  i8x32 shifted_left() const {
    return {vshlq_n_s8(low, Bits), vshlq_n_s8(high, Bits)};
  }
  template <int Bits>
  i8x32 shifted_right() const {
    const auto shifted = [](int8x16_t half) {
      return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(half), Bits));
    };
    return {shifted(low), shifted(high)};
  }
  friend i8x32 operator&(i8x32 a, i8x32 b) { return {vandq_s8(a.low, b.low), vandq_s8(a.high, b.high)}; }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend i8x32 select_bits(i8x32 mask, i8x32 a, i8x32 b) {
    return {vbslq_s8(vreinterpretq_u8_s8(mask.low), a.low, b.low),
            vbslq_s8(vreinterpretq_u8_s8(mask.high), a.high, b.high)};
  }
  /// The lower halves of sixteen bytes, then their upper halves.
  static i8x32 nibbles(const std::uint8_t* from) {
    const int8x16_t both = vreinterpretq_s8_u8(vld1q_u8(from));
    return {lower_half(both), upper_half(both)};
  }
  /// a[0], b[0], a[1], b[1], ... of sixteen bytes each.
  static i8x32 interleaved(const std::uint8_t* a, const std::uint8_t* b) {
    const uint8x16_t left = vld1q_u8(a), right = vld1q_u8(b);
    return {vreinterpretq_s8_u8(vzip1q_u8(left, right)), vreinterpretq_s8_u8(vzip2q_u8(left, right))};
  }
  i8x32 low_nibbles() const { return {lower_half(low), lower_half(high)}; }
  i8x32 high_nibbles() const { return {upper_half(low), upper_half(high)}; }

  /// a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] with 0 <= a < 128, b signed; |sum| must stay within int16.
  friend i16x16 multiply_byte_pairs(i8x32 a, i8x32 b) {
    return {pair_sums(a.low, b.low), pair_sums(a.high, b.high)};
  }
  /// Sums of four neighbouring products, 0 <= a < 128, b signed; the sum of two must stay within int16.
  friend i32x8 multiply_byte_quads(i8x32 a, i8x32 b) {
#if defined(__ARM_FEATURE_DOTPROD)
    return {vdotq_s32(vdupq_n_s32(0), a.low, b.low), vdotq_s32(vdupq_n_s32(0), a.high, b.high)};
#else
    return {vpaddlq_s16(pair_sums(a.low, b.low)), vpaddlq_s16(pair_sums(a.high, b.high))};
#endif
  }

 private:
  static int8x16_t lower_half(int8x16_t bytes) {
    return vandq_s8(bytes, vdupq_n_s8(15));
  }
  static int8x16_t upper_half(int8x16_t bytes) {
    return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(bytes), 4));
  }
  static int16x8_t pair_sums(int8x16_t a, int8x16_t b) {
    return vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
  }
};

// Operands of arithmetic are always registers here: there is no load to fold into a use.
inline void keep_in_register(i16x16&) {}

/// Sixteen bytes of quants.
struct u8x16 {
  uint8x16_t lanes;

  static u8x16 load(const std::uint8_t* from) { return {vld1q_u8(from)}; }
  /// a[0], b[0], a[1], b[1], ... of the first eight lanes, and of the last eight.
  friend u8x16 interleave_first(u8x16 a, u8x16 b) { return {vzip1q_u8(a.lanes, b.lanes)}; }
  friend u8x16 interleave_last(u8x16 a, u8x16 b) { return {vzip2q_u8(a.lanes, b.lanes)}; }
  i16x16 widen_signed() const {
    const int8x16_t bytes = vreinterpretq_s8_u8(lanes);
    return {vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)};
  }
  i16x16 widen_unsigned() const {
    return {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(lanes))), vreinterpretq_s16_u16(vmovl_high_u8(lanes))};
  }
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

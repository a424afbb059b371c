// SPDX-License-Identifier: Apache-2.0
// i16x16.hpp in arrays: the meaning of every operation, and the path of processors for which no other is
// written.
#pragma once

#include "corematching/backend/cpu/simd/f32x8.hpp"

#if !COREMATCHING_HAS_SIMD

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct i32x8 {
  std::array<std::int32_t, 8> lanes;

  static i32x8 zero() { return broadcast(0); }
  static i32x8 broadcast(std::int32_t value) {
    i32x8 result;
    result.lanes.fill(value);
    return result;
  }
  /// To the nearest integer, ties to even.
  static i32x8 rounded(f32x8 x) {
    i32x8 result;
    for (std::size_t i = 0; i < 8; ++i)
      result.lanes[i] = static_cast<std::int32_t>(std::nearbyint(x.lanes[i]));
    return result;
  }
  void store(std::int32_t* to) const { std::copy_n(lanes.data(), 8, to); }
  f32x8 to_float() const {
    f32x8 result;
    for (std::size_t i = 0; i < 8; ++i) result.lanes[i] = static_cast<float>(lanes[i]);
    return result;
  }

  template <int Bits>
  i32x8 shifted_left() const {
    i32x8 result = *this;
    for (std::int32_t& lane : result.lanes)
      lane = static_cast<std::int32_t>(static_cast<std::uint32_t>(lane) << Bits);
    return result;
  }
  friend i32x8 operator+(i32x8 a, i32x8 b) {
    for (std::size_t i = 0; i < 8; ++i) a.lanes[i] += b.lanes[i];
    return a;
  }
  friend i32x8 operator*(i32x8 a, const i32x8& b) {
    for (std::size_t i = 0; i < 8; ++i) a.lanes[i] *= b.lanes[i];
    return a;
  }
  /// Both halves of each lane = the lower half.
  i32x8 doubled() const {
    i32x8 result;
    for (std::size_t i = 0; i < 8; ++i)
      result.lanes[i] = static_cast<std::int32_t>((lanes[i] & 0xffffu) * 0x10001u);
    return result;
  }
  /// The lower halves of lanes: the lower bytes of `low` and `high`.
  friend i32x8 byte_pairs(const i32x8& low, const i32x8& high) {
    i32x8 result;
    for (std::size_t i = 0; i < 8; ++i)
      result.lanes[i] = static_cast<std::int32_t>((low.lanes[i] & 0xffu) | (high.lanes[i] & 0xffu) << 8);
    return result;
  }
  void pin() {}
};

struct i16x16 {
  std::array<std::int16_t, 16> lanes;

  static i16x16 load(const std::int16_t* from) {
    i16x16 result;
    std::copy_n(from, 16, result.lanes.data());
    return result;
  }
  /// Thirty-two bytes, two in each lane.
  static i16x16 load_bytes(const std::uint8_t* from) {
    i16x16 result;
    for (std::size_t i = 0; i < 16; ++i)
      result.lanes[i] = static_cast<std::int16_t>(from[2 * i] | from[2 * i + 1] << 8);
    return result;
  }
  /// The pair of neighbours (low half, high half of `pair`) eight times.
  static i16x16 broadcast_pair(std::int32_t pair) {
    i16x16 result;
    for (std::size_t i = 0; i < 8; ++i) {
      result.lanes[2 * i] = static_cast<std::int16_t>(pair & 0xffff);
      result.lanes[2 * i + 1] = static_cast<std::int16_t>(pair >> 16);
    }
    return result;
  }
  static i16x16 broadcast(std::int16_t value) {
    i16x16 result;
    result.lanes.fill(value);
    return result;
  }
  void store(std::int16_t* to) const { std::copy_n(lanes.data(), 16, to); }
  static i16x16 zero() { return broadcast_pair(0); }
  /// Of thirty-two signed bytes those at even places, and at odd places, times 256.
  static i16x16 even_bytes(i16x16 bytes) {
    for (std::int16_t& lane : bytes.lanes) lane = static_cast<std::int16_t>(lane << 8);
    return bytes;
  }
  static i16x16 odd_bytes(i16x16 bytes) {
    for (std::int16_t& lane : bytes.lanes) lane = static_cast<std::int16_t>(lane & 0xff00);
    return bytes;
  }
  /// round(a b / 2^15)
  friend i16x16 multiply_high(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i)
      a.lanes[i] = static_cast<std::int16_t>((a.lanes[i] * b.lanes[i] + (1 << 14)) >> 15);
    return a;
  }
  friend i16x16 operator+(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i) a.lanes[i] = static_cast<std::int16_t>(a.lanes[i] + b.lanes[i]);
    return a;
  }
  f32x8 first_to_float() const {
    f32x8 result;
    for (std::size_t i = 0; i < 8; ++i) result.lanes[i] = lanes[i];
    return result;
  }
  f32x8 last_to_float() const {
    f32x8 result;
    for (std::size_t i = 0; i < 8; ++i) result.lanes[i] = lanes[i + 8];
    return result;
  }
  /// even[0], odd[0], even[1], odd[1], ...: the first sixteen of them, and the last.
  static i16x16 interleave(const i16x16& even, const i16x16& odd, std::size_t first) {
    i16x16 result;
    for (std::size_t i = 0; i < 8; ++i) {
      result.lanes[2 * i] = even.lanes[first + i];
      result.lanes[2 * i + 1] = odd.lanes[first + i];
    }
    return result;
  }
  friend i16x16 interleaved_first(const i16x16& even, const i16x16& odd) { return interleave(even, odd, 0); }
  friend i16x16 interleaved_last(const i16x16& even, const i16x16& odd) { return interleave(even, odd, 8); }
  /// The lower and the upper four bits of each lane, of which only the lower eight are set.
  i16x16 low_nibbles() const {
    i16x16 result = *this;
    for (std::int16_t& lane : result.lanes) lane &= 15;
    return result;
  }
  i16x16 high_nibbles() const {
    i16x16 result = *this;
    for (std::int16_t& lane : result.lanes) lane = static_cast<std::int16_t>(lane >> 4);
    return result;
  }
  template <int Bits>
  i16x16 shifted_left() const {
    i16x16 result = *this;
    for (std::int16_t& lane : result.lanes)
      lane = static_cast<std::int16_t>(static_cast<unsigned>(lane) << Bits);
    return result;
  }
  /// Zeros come from above.
  template <int Bits>
  i16x16 shifted_right() const {
    i16x16 result = *this;
    for (std::int16_t& lane : result.lanes)
      lane = static_cast<std::int16_t>(static_cast<std::uint16_t>(lane) >> Bits);
    return result;
  }
  friend i16x16 operator&(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i) a.lanes[i] = static_cast<std::int16_t>(a.lanes[i] & b.lanes[i]);
    return a;
  }
  friend i16x16 operator|(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i) a.lanes[i] = static_cast<std::int16_t>(a.lanes[i] | b.lanes[i]);
    return a;
  }

  friend i16x16 operator-(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i) a.lanes[i] = static_cast<std::int16_t>(a.lanes[i] - b.lanes[i]);
    return a;
  }
  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
  friend i32x8 multiply_add_pairs(const i16x16& a, const i16x16& b, i32x8 c) {
    for (std::size_t i = 0; i < 8; ++i)
      c.lanes[i] += a.lanes[2 * i] * b.lanes[2 * i] + a.lanes[2 * i + 1] * b.lanes[2 * i + 1];
    return c;
  }
};

/// Thirty-two bytes.
struct i8x32 {
  std::array<std::int8_t, 32> lanes;

  static i8x32 load(const std::int8_t* from) {
    i8x32 result;
    std::copy_n(from, 32, result.lanes.data());
    return result;
  }
  /// Four bytes, eight times.
  static i8x32 broadcast(std::int32_t bytes) {
    i8x32 result;
    for (std::size_t i = 0; i < 32; ++i)
      result.lanes[i] = static_cast<std::int8_t>(static_cast<std::uint32_t>(bytes) >> 8 * (i % 4));
    return result;
  }
  static i8x32 load(const std::uint8_t* from) {
    i8x32 result;
    for (std::size_t i = 0; i < 32; ++i) result.lanes[i] = static_cast<std::int8_t>(from[i]);
    return result;
  }
  static i8x32 broadcast(std::uint8_t value) {
    i8x32 result;
    result.lanes.fill(static_cast<std::int8_t>(value));
    return result;
  }
  void store(std::uint8_t* to) const {
    for (std::size_t i = 0; i < 32; ++i) to[i] = static_cast<std::uint8_t>(lanes[i]);
  }
  /// What leaves a byte may enter its neighbour; here it does not.
  template <int Bits>
  i8x32 shifted_left() const {
    i8x32 result = *this;
    for (std::int8_t& lane : result.lanes)
      lane = static_cast<std::int8_t>(static_cast<unsigned>(lane) << Bits);
    return result;
  }
  template <int Bits>
  i8x32 shifted_right() const {
    i8x32 result = *this;
    for (std::int8_t& lane : result.lanes)
      lane = static_cast<std::int8_t>(static_cast<std::uint8_t>(lane) >> Bits);
    return result;
  }
  friend i8x32 operator&(i8x32 a, const i8x32& b) {
    for (std::size_t i = 0; i < 32; ++i) a.lanes[i] = static_cast<std::int8_t>(a.lanes[i] & b.lanes[i]);
    return a;
  }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend i8x32 select_bits(const i8x32& mask, i8x32 a, const i8x32& b) {
    for (std::size_t i = 0; i < 32; ++i)
      a.lanes[i] = static_cast<std::int8_t>((a.lanes[i] & mask.lanes[i]) | (b.lanes[i] & ~mask.lanes[i]));
    return a;
  }
  /// The lower halves of sixteen bytes, then their upper halves.
  static i8x32 nibbles(const std::uint8_t* from) {
    i8x32 result;
    for (std::size_t i = 0; i < 16; ++i) {
      result.lanes[i] = static_cast<std::int8_t>(from[i] & 15);
      result.lanes[i + 16] = static_cast<std::int8_t>(from[i] >> 4);
    }
    return result;
  }
  /// a[0], b[0], a[1], b[1], ... of sixteen bytes each.
  static i8x32 interleaved(const std::uint8_t* a, const std::uint8_t* b) {
    i8x32 result;
    for (std::size_t i = 0; i < 16; ++i) {
      result.lanes[2 * i] = static_cast<std::int8_t>(a[i]);
      result.lanes[2 * i + 1] = static_cast<std::int8_t>(b[i]);
    }
    return result;
  }
  i8x32 low_nibbles() const {
    i8x32 result = *this;
    for (std::int8_t& lane : result.lanes) lane &= 15;
    return result;
  }
  i8x32 high_nibbles() const {
    i8x32 result = *this;
    for (std::int8_t& lane : result.lanes)
      lane = static_cast<std::int8_t>(static_cast<std::uint8_t>(lane) >> 4);
    return result;
  }

  std::int32_t product(const i8x32& b, std::size_t i) const {
    return static_cast<std::uint8_t>(lanes[i]) * b.lanes[i];
  }
  /// a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] with 0 <= a < 128, b signed; |sum| must stay within int16.
  friend i16x16 multiply_byte_pairs(const i8x32& a, const i8x32& b) {
    i16x16 result;
    for (std::size_t i = 0; i < 16; ++i)
      result.lanes[i] = static_cast<std::int16_t>(a.product(b, 2 * i) + a.product(b, 2 * i + 1));
    return result;
  }
  /// Sums of four neighbouring products, 0 <= a < 128, b signed; the sum of two must stay within int16.
  friend i32x8 multiply_byte_quads(const i8x32& a, const i8x32& b) {
    i32x8 result = i32x8::zero();
    for (std::size_t i = 0; i < 32; ++i) result.lanes[i / 4] += a.product(b, i);
    return result;
  }
};

inline void keep_in_register(i16x16&) {}

/// Sixteen bytes of quants.
struct u8x16 {
  std::array<std::uint8_t, 16> lanes;

  static u8x16 load(const std::uint8_t* from) {
    u8x16 result;
    std::copy_n(from, 16, result.lanes.data());
    return result;
  }
  static u8x16 interleave(const u8x16& a, const u8x16& b, std::size_t first) {
    u8x16 result;
    for (std::size_t i = 0; i < 8; ++i) {
      result.lanes[2 * i] = a.lanes[first + i];
      result.lanes[2 * i + 1] = b.lanes[first + i];
    }
    return result;
  }
  /// a[0], b[0], a[1], b[1], ... of the first eight lanes, and of the last eight.
  friend u8x16 interleave_first(const u8x16& a, const u8x16& b) { return interleave(a, b, 0); }
  friend u8x16 interleave_last(const u8x16& a, const u8x16& b) { return interleave(a, b, 8); }
  i16x16 widen_signed() const {
    i16x16 result;
    for (std::size_t i = 0; i < 16; ++i) result.lanes[i] = static_cast<std::int8_t>(lanes[i]);
    return result;
  }
  i16x16 widen_unsigned() const {
    i16x16 result;
    for (std::size_t i = 0; i < 16; ++i) result.lanes[i] = lanes[i];
    return result;
  }
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

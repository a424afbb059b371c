// SPDX-License-Identifier: Apache-2.0
// Sixteen int16 lanes and the eight int32 sums of products of their neighbours: what the block formats are
// multiplied with. AVX2 registers where the compiler targets them, arrays otherwise.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "corematching/backend/cpu/simd.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

#if COREMATCHING_HAS_AVX2

struct i32x8 {
  __m256i lanes;

  static i32x8 zero() { return {_mm256_setzero_si256()}; }
  static i32x8 broadcast(std::int32_t value) { return {_mm256_set1_epi32(value)}; }
  /// To the nearest integer, ties to even.
  static i32x8 rounded(f32x8 x) { return {_mm256_cvtps_epi32(x.lanes)}; }
  void store(std::int32_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  f32x8 to_float() const { return {_mm256_cvtepi32_ps(lanes)}; }

  friend i32x8 operator+(i32x8 a, i32x8 b) { return {_mm256_add_epi32(a.lanes, b.lanes)}; }
  friend i32x8 operator-(i32x8 a, i32x8 b) { return {_mm256_sub_epi32(a.lanes, b.lanes)}; }
  template <int Bits>
  i32x8 shifted_left() const {
    return {_mm256_slli_epi32(lanes, Bits)};
  }
  void pin() { COREMATCHING_PIN(lanes); }
};

struct i16x16 {
  __m256i lanes;

  static i16x16 load(const std::int16_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  /// The pair of neighbours (low half, high half of `pair`) eight times.
  static i16x16 broadcast_pair(std::int32_t pair) { return {_mm256_set1_epi32(pair)}; }
  static i16x16 broadcast(std::int16_t value) { return {_mm256_set1_epi16(value)}; }
  /// Lane 2 i = low[i], lane 2 i + 1 = high[i]; both within int16.
  static i16x16 pairs(i32x8 low, i32x8 high) {
    const __m256i low_half = _mm256_and_si256(low.lanes, _mm256_set1_epi32(0xffff));
    return {_mm256_or_si256(low_half, _mm256_slli_epi32(high.lanes, 16))};
  }
  void store(std::int16_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  /// The lower and the upper four bits of each lane, of which only the lower eight are set.
  i16x16 low_nibbles() const { return {_mm256_and_si256(lanes, _mm256_set1_epi16(15))}; }
  i16x16 high_nibbles() const { return {_mm256_srli_epi16(lanes, 4)}; }

  friend i16x16 operator-(i16x16 a, i16x16 b) { return {_mm256_sub_epi16(a.lanes, b.lanes)}; }
  /// a * b / 2^15, rounded to the nearest.
  friend i16x16 multiply_fractions(i16x16 a, i16x16 b) { return {_mm256_mulhrs_epi16(a.lanes, b.lanes)}; }
  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
  friend i32x8 multiply_add_pairs(i16x16 a, i16x16 b, i32x8 c) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return {_mm256_dpwssd_epi32(c.lanes, a.lanes, b.lanes)};
#elif defined(__AVXVNNI__)
    return {_mm256_dpwssd_avx_epi32(c.lanes, a.lanes, b.lanes)};
#else
    return {_mm256_add_epi32(_mm256_madd_epi16(a.lanes, b.lanes), c.lanes)};
#endif
  }
};

/// Sixteen bytes of quants.
struct u8x16 {
  __m128i lanes;

  static u8x16 load(const std::uint8_t* from) {
    return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))};
  }
  /// a[0], b[0], a[1], b[1], ... of the first eight lanes, and of the last eight.
  friend u8x16 interleave_first(u8x16 a, u8x16 b) { return {_mm_unpacklo_epi8(a.lanes, b.lanes)}; }
  friend u8x16 interleave_last(u8x16 a, u8x16 b) { return {_mm_unpackhi_epi8(a.lanes, b.lanes)}; }
  i16x16 widen_signed() const { return {_mm256_cvtepi8_epi16(lanes)}; }
  i16x16 widen_unsigned() const { return {_mm256_cvtepu8_epi16(lanes)}; }
};

#else

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

  friend i32x8 operator+(i32x8 a, i32x8 b) {
    for (std::size_t i = 0; i < 8; ++i) a.lanes[i] += b.lanes[i];
    return a;
  }
  friend i32x8 operator-(i32x8 a, i32x8 b) {
    for (std::size_t i = 0; i < 8; ++i) a.lanes[i] -= b.lanes[i];
    return a;
  }
  template <int Bits>
  i32x8 shifted_left() const {
    i32x8 result;
    for (std::size_t i = 0; i < 8; ++i) result.lanes[i] = lanes[i] * (1 << Bits);
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
  /// Lane 2 i = low[i], lane 2 i + 1 = high[i]; both within int16.
  static i16x16 pairs(i32x8 low, i32x8 high) {
    i16x16 result;
    for (std::size_t i = 0; i < 8; ++i) {
      result.lanes[2 * i] = static_cast<std::int16_t>(low.lanes[i]);
      result.lanes[2 * i + 1] = static_cast<std::int16_t>(high.lanes[i]);
    }
    return result;
  }
  void store(std::int16_t* to) const { std::copy_n(lanes.data(), 16, to); }
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

  friend i16x16 operator-(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i) a.lanes[i] = static_cast<std::int16_t>(a.lanes[i] - b.lanes[i]);
    return a;
  }
  /// a * b / 2^15, rounded to the nearest.
  friend i16x16 multiply_fractions(i16x16 a, const i16x16& b) {
    for (std::size_t i = 0; i < 16; ++i)
      a.lanes[i] = static_cast<std::int16_t>((a.lanes[i] * b.lanes[i] + (1 << 14)) >> 15);
    return a;
  }
  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
  friend i32x8 multiply_add_pairs(const i16x16& a, const i16x16& b, i32x8 c) {
    for (std::size_t i = 0; i < 8; ++i)
      c.lanes[i] += a.lanes[2 * i] * b.lanes[2 * i] + a.lanes[2 * i + 1] * b.lanes[2 * i + 1];
    return c;
  }
};

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

#endif

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The vectors of 512 bits of widest.hpp, f32x16.hpp and i16x32.hpp.
#pragma once

#include "corematching/core/config.hpp"

#if COREMATCHING_HAS_AVX512

#include <immintrin.h>

#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct f32x16 {
  __m512 lanes;

  static f32x16 zero() { return {_mm512_setzero_ps()}; }
  static f32x16 broadcast(float value) { return {_mm512_set1_ps(value)}; }
  static f32x16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static f32x16 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(upper)));
    return {_mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(wide, 8), _mm256_set1_epi16(lower)))};
  }
  float sum() const { return _mm512_reduce_add_ps(lanes); }
  void store(float* to) const { _mm512_storeu_ps(to, lanes); }

  /// a * b + c, rounded once.
  friend f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)}; }
  friend f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.lanes, b.lanes)}; }
  friend f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.lanes, b.lanes)}; }
  friend f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.lanes, b.lanes)}; }
  friend f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.lanes, b.lanes)}; }
  /// The larger and the smaller of two values; NaN where b is.
  friend f32x16 larger(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.lanes, b.lanes)}; }
  friend f32x16 smaller(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.lanes, b.lanes)}; }
  /// To the nearest integer, ties to even.
  f32x16 rounded() const { return {_mm512_roundscale_ps(lanes, _MM_FROUND_TO_NEAREST_INT)}; }
  /// a * 2^n for integers n <= 128; maybe 0 where n < -126.
  friend f32x16 scaled_by_power(f32x16 a, f32x16 n) { return {_mm512_scalef_ps(a.lanes, n.lanes)}; }
};

struct i32x16 {
  __m512i lanes;

  static i32x16 zero() { return {_mm512_setzero_si512()}; }
  static i32x16 broadcast(std::int32_t value) { return {_mm512_set1_epi32(value)}; }
  void store(std::int32_t* to) const { _mm512_storeu_si512(to, lanes); }
  f32x16 to_float() const { return {_mm512_cvtepi32_ps(lanes)}; }
  template <int Bits>
  i32x16 shifted_left() const {
    return {_mm512_slli_epi32(lanes, Bits)};
  }
  void pin() { COREMATCHING_PIN(lanes); }
};

struct i16x32 {
  __m512i lanes;

  static i16x32 load(const std::int16_t* from) { return {_mm512_loadu_si512(from)}; }
  void store(std::int16_t* to) const { _mm512_storeu_si512(to, lanes); }
  /// The pair of neighbours (low half, high half of `pair`) sixteen times.
  static i16x32 broadcast_pair(std::int32_t pair) { return {_mm512_set1_epi32(pair)}; }
  static i16x32 broadcast(std::int16_t value) { return {_mm512_set1_epi16(value)}; }
  /// Thirty-two bytes without sign, one in each lane.
  static i16x32 load_widened(const std::uint8_t* from) {
    return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  template <int Bits>
  i16x32 shifted_left() const {
    return {_mm512_slli_epi16(lanes, Bits)};
  }
  /// Zeros come from above.
  template <int Bits>
  i16x32 shifted_right() const {
    return {_mm512_srli_epi16(lanes, Bits)};
  }
  friend i16x32 operator&(i16x32 a, i16x32 b) { return {_mm512_and_si512(a.lanes, b.lanes)}; }
  friend i16x32 operator|(i16x32 a, i16x32 b) { return {_mm512_or_si512(a.lanes, b.lanes)}; }
  friend i16x32 operator-(i16x32 a, i16x32 b) { return {_mm512_sub_epi16(a.lanes, b.lanes)}; }
  friend i16x32 operator+(i16x32 a, i16x32 b) { return {_mm512_add_epi16(a.lanes, b.lanes)}; }
  /// round(a b / 2^15)
  friend i16x32 multiply_high(i16x32 a, i16x32 b) { return {_mm512_mulhrs_epi16(a.lanes, b.lanes)}; }
  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
  friend i32x16 multiply_add_pairs(i16x32 a, i16x32 b, i32x16 c) {
    return {_mm512_dpwssd_epi32(c.lanes, a.lanes, b.lanes)};
  }
};

struct i8x64 {
  __m512i lanes;

  /// Four bytes, sixteen times.
  static i8x64 broadcast(std::int32_t bytes) { return {_mm512_set1_epi32(bytes)}; }
  static i8x64 load(const std::int8_t* from) { return {_mm512_loadu_si512(from)}; }
};

struct u8x64 {
  __m512i lanes;

  static u8x64 load(const std::uint8_t* from) { return {_mm512_loadu_si512(from)}; }
  static u8x64 broadcast(std::uint8_t value) { return {_mm512_set1_epi8(static_cast<char>(value))}; }
  void store(std::uint8_t* to) const { _mm512_storeu_si512(to, lanes); }
  /// What leaves a byte may enter its neighbour.
  template <int Bits>
  u8x64 shifted_left() const {
    return {_mm512_slli_epi16(lanes, Bits)};
  }
  template <int Bits>
  u8x64 shifted_right() const {
    return {_mm512_srli_epi16(lanes, Bits)};
  }
  friend u8x64 operator&(u8x64 a, u8x64 b) { return {_mm512_and_si512(a.lanes, b.lanes)}; }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend u8x64 select_bits(u8x64 mask, u8x64 a, u8x64 b) {
    return {_mm512_ternarylogic_epi64(mask.lanes, a.lanes, b.lanes, 0xca)};
  }

  /// c[i] + the sum of the four products a[4 i + j] b[4 i + j]
  friend i32x16 multiply_add_quads(u8x64 a, i8x64 b, i32x16 c) {
    return {_mm512_dpbusd_epi32(c.lanes, a.lanes, b.lanes)};
  }
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

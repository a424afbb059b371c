// SPDX-License-Identifier: Apache-2.0
// The vectors of 512 bits of widest.hpp, f32x16.hpp and i16x32.hpp.
#pragma once

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"

#if COREMATCHING_HAS_AVX512

#include <immintrin.h>

#include <array>
#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct f32x16 {
  __m512 lanes;

  static f32x16 zero() { return {_mm512_setzero_ps()}; }
  static f32x16 broadcast(float value) { return {_mm512_set1_ps(value)}; }
  /// Two neighbours, eight times.
  static f32x16 broadcast_two(const float* from) {
    return {_mm512_castsi512_ps(_mm512_broadcastq_epi64(_mm_loadu_si64(from)))};
  }
  static f32x16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static f32x16 load(const f16* from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  static f32x16 load(const bf16* from) {
    const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16))};
  }
  /// Binary16 numbers whose upper and lower bytes stand apart.
  static f32x16 load_bytes(const std::uint8_t* upper, const std::uint8_t* lower) {
    return of_bytes(upper, widened(lower));
  }
  /// The same where all have this lower byte.
  static f32x16 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    return of_bytes(upper, _mm256_set1_epi16(lower));
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

 private:
  static __m256i widened(const std::uint8_t* bytes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }
  static f32x16 of_bytes(const std::uint8_t* upper, __m256i lower) {
    return {_mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(widened(upper), 8), lower))};
  }
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
  friend i32x16 operator-(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.lanes, b.lanes)}; }
  void pin() { COREMATCHING_PIN(lanes); }
};

/// Sums of pairs as i16x32::pairs() has them, in the order of their places.
inline std::array<i32x16, 2> in_order(const std::array<i32x16, 2>& sums) {
  const __m512i first = sums[0].lanes, last = sums[1].lanes;
  return {{{_mm512_shuffle_i64x2(first, last, 0x44)}, {_mm512_shuffle_i64x2(first, last, 0xee)}}};
}

struct i16x32 {
  __m512i lanes;

  static i16x32 load(const std::int16_t* from) { return {_mm512_loadu_si512(from)}; }
  void store(std::int16_t* to) const { _mm512_storeu_si512(to, lanes); }
  /// The pair of neighbours (low half, high half of `pair`) sixteen times.
  static i16x32 broadcast_pair(std::int32_t pair) { return {_mm512_set1_epi32(pair)}; }
  static i16x32 broadcast(std::int16_t value) { return {_mm512_set1_epi16(value)}; }
  /// Thirty-two bytes, one in each lane.
  static i16x32 load_widened(const std::uint8_t* from) {
    return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  static i16x32 load_widened(const std::int8_t* from) {
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
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
  /// Bytes of `a` and `b` side by side, one in each lane: of places 0..7 and 16..23, then of the others.
  static std::array<i16x32, 2> pairs(const std::int8_t* a, const std::int8_t* b) {
    const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
    const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return {{{_mm512_cvtepi8_epi16(_mm256_unpacklo_epi8(left, right))},
             {_mm512_cvtepi8_epi16(_mm256_unpackhi_epi8(left, right))}}};
  }
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
  /// The bytes of two blocks of 32 in the order of u8x64::nibbles_of_two().
  static i8x64 load_two(const std::int8_t* from) {
    const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    return {_mm512_permutexvar_epi32(order, _mm512_loadu_si512(from))};
  }
};

struct u8x64 {
  __m512i lanes;

  static u8x64 load(const std::uint8_t* from) { return {_mm512_loadu_si512(from)}; }
  static u8x64 broadcast(std::uint8_t value) { return {_mm512_set1_epi8(static_cast<char>(value))}; }
  /// Of twice sixteen bytes the lower halves, then the upper halves: four of the first sixteen, four of the
  /// others, and so on.
  static u8x64 nibbles_of_two(const std::uint8_t* from) {
    const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i halves = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m512i twice = _mm512_permutexvar_epi32(order, _mm512_castsi256_si512(bytes));
    return {_mm512_and_si512(_mm512_srlv_epi64(twice, halves), _mm512_set1_epi8(15))};
  }
  /// The lower halves of 32 bytes, then their upper halves.
  static u8x64 nibbles(const std::uint8_t* from) {
    const __m512i shifted = _mm512_srlv_epi64(twice(from), _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
    return {_mm512_and_si512(shifted, _mm512_set1_epi8(15))};
  }
  /// 0 or `value`: bit `Bit` of 32 bytes, then the bit behind it.
  template <int Bit>
  static u8x64 two_bits(const std::uint8_t* from, std::uint8_t value) {
    const auto of_each_half = [](int bit) { return static_cast<char>(1 << bit); };
    const __m512i bits =
        _mm512_inserti64x4(_mm512_set1_epi8(of_each_half(Bit)), _mm256_set1_epi8(of_each_half(Bit + 1)), 1);
    return {_mm512_maskz_set1_epi8(_mm512_test_epi8_mask(twice(from), bits), static_cast<char>(value))};
  }
  /// Bits `Bit` and `Bit` + 1 of 32 bytes, then the two behind those, as bits 4 and 5; `Bit` is 0 or 4.
  template <int Bit>
  static u8x64 two_pairs_of_bits(const std::uint8_t* from) {
    const auto halves = [](short low, short high) {
      return _mm512_inserti64x4(_mm512_set1_epi16(low), _mm256_set1_epi16(high), 1);
    };
    const __m512i moved = Bit == 0 ? _mm512_sllv_epi16(twice(from), halves(4, 2))
                                   : _mm512_srlv_epi16(twice(from), halves(0, 2));
    return {_mm512_and_si512(moved, _mm512_set1_epi8(0x30))};
  }
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
  friend u8x64 operator|(u8x64 a, u8x64 b) { return {_mm512_or_si512(a.lanes, b.lanes)}; }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend u8x64 select_bits(u8x64 mask, u8x64 a, u8x64 b) {
    return {_mm512_ternarylogic_epi64(mask.lanes, a.lanes, b.lanes, 0xca)};
  }

  /// c[i] + the sum of the four products a[4 i + j] b[4 i + j]
  friend i32x16 multiply_add_quads(u8x64 a, i8x64 b, i32x16 c) {
    return {_mm512_dpbusd_epi32(c.lanes, a.lanes, b.lanes)};
  }

 private:
  static __m512i twice(const std::uint8_t* from) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
};

/// As for the vectors of 256 bits.
inline void keep_in_register(i16x32& x) {
#if defined(__GNUC__)
  asm("" : "+v"(x.lanes));
#endif
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

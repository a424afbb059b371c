// SPDX-License-Identifier: Apache-2.0
// i16x16.hpp in AVX2 registers, with the dot product instructions of VNNI where the compiler targets
// them: those of AVX-512, or their copies for CPUs that have nothing else of it.
#pragma once

#include "corematching/backend/cpu/simd/f32x8.hpp"

#if COREMATCHING_HAS_AVX2

#include <array>
#include <cstdint>
#include <cstring>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct i32x8 {
  __m256i lanes;

  static i32x8 zero() { return {_mm256_setzero_si256()}; }
  static i32x8 broadcast(std::int32_t value) { return {_mm256_set1_epi32(value)}; }
  /// To the nearest integer, ties to even.
  static i32x8 rounded(f32x8 x) { return {_mm256_cvtps_epi32(x.lanes)}; }
  void store(std::int32_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  f32x8 to_float() const { return {_mm256_cvtepi32_ps(lanes)}; }
  template <int Bits>
  i32x8 shifted_left() const {
    return {_mm256_slli_epi32(lanes, Bits)};
  }

  friend i32x8 operator+(i32x8 a, i32x8 b) { return {_mm256_add_epi32(a.lanes, b.lanes)}; }
  friend i32x8 operator-(i32x8 a, i32x8 b) { return {_mm256_sub_epi32(a.lanes, b.lanes)}; }
  friend i32x8 operator*(i32x8 a, i32x8 b) { return {_mm256_mullo_epi32(a.lanes, b.lanes)}; }
  /// Both halves of each lane = the lower half.
  i32x8 doubled() const {
    const __m256i low = _mm256_and_si256(lanes, _mm256_set1_epi32(0xffff));
    return {_mm256_or_si256(low, _mm256_slli_epi32(lanes, 16))};
  }
  /// Lanes whose halves are the lower ones of `low` and `high`.
  friend i32x8 half_pairs(i32x8 low, i32x8 high) {
    return {_mm256_blend_epi16(low.lanes, _mm256_slli_epi32(high.lanes, 16), 0xaa)};
  }
  /// The lower halves of lanes: the lower bytes of `low` and `high`.
  friend i32x8 byte_pairs(i32x8 low, i32x8 high) {
    const __m256i low_byte = _mm256_and_si256(low.lanes, _mm256_set1_epi32(0xff));
    return {_mm256_or_si256(low_byte, _mm256_slli_epi32(high.lanes, 8))};
  }
  void pin() { COREMATCHING_PIN(lanes); }
};

struct i16x16 {
  __m256i lanes;

  static i16x16 load(const std::int16_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  /// Thirty-two bytes, two in each lane.
  static i16x16 load_bytes(const std::uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  /// The pair of neighbours (low half, high half of `pair`) eight times.
  static i16x16 broadcast_pair(std::int32_t pair) { return {_mm256_set1_epi32(pair)}; }
  static i16x16 broadcast(std::int16_t value) { return {_mm256_set1_epi16(value)}; }
  void store(std::int16_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  static i16x16 zero() { return {_mm256_setzero_si256()}; }
  /// Of thirty-two signed bytes those at even places, and at odd places, times 256.
  static i16x16 even_bytes(i16x16 bytes) { return {_mm256_slli_epi16(bytes.lanes, 8)}; }
  static i16x16 odd_bytes(i16x16 bytes) {
    return {_mm256_and_si256(bytes.lanes, _mm256_set1_epi16(static_cast<short>(0xff00)))};
  }
  /// round(a b / 2^15)
  friend i16x16 multiply_high(i16x16 a, i16x16 b) { return {_mm256_mulhrs_epi16(a.lanes, b.lanes)}; }
  friend i16x16 operator+(i16x16 a, i16x16 b) { return {_mm256_add_epi16(a.lanes, b.lanes)}; }
  f32x8 first_to_float() const {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(lanes)))};
  }
  f32x8 last_to_float() const {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(lanes, 1)))};
  }
  /// even[0], odd[0], even[1], odd[1], ...: the first sixteen of them, and the last.
  friend i16x16 interleaved_first(i16x16 even, i16x16 odd) {
    return {_mm256_permute2x128_si256(_mm256_unpacklo_epi16(even.lanes, odd.lanes),
                                      _mm256_unpackhi_epi16(even.lanes, odd.lanes), 0x20)};
  }
  friend i16x16 interleaved_last(i16x16 even, i16x16 odd) {
    return {_mm256_permute2x128_si256(_mm256_unpacklo_epi16(even.lanes, odd.lanes),
                                      _mm256_unpackhi_epi16(even.lanes, odd.lanes), 0x31)};
  }
  /// The lower and the upper four bits of each lane, of which only the lower eight are set.
  i16x16 low_nibbles() const { return {_mm256_and_si256(lanes, _mm256_set1_epi16(15))}; }
  i16x16 high_nibbles() const { return {_mm256_srli_epi16(lanes, 4)}; }
  template <int Bits>
  i16x16 shifted_left() const {
    return {_mm256_slli_epi16(lanes, Bits)};
  }
  /// Zeros come from above.
  template <int Bits>
  i16x16 shifted_right() const {
    return {_mm256_srli_epi16(lanes, Bits)};
  }
  friend i16x16 operator&(i16x16 a, i16x16 b) { return {_mm256_and_si256(a.lanes, b.lanes)}; }
  friend i16x16 operator|(i16x16 a, i16x16 b) { return {_mm256_or_si256(a.lanes, b.lanes)}; }

  friend i16x16 operator-(i16x16 a, i16x16 b) { return {_mm256_sub_epi16(a.lanes, b.lanes)}; }
  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
  friend i32x8 multiply_add_pairs(i16x16 a, i16x16 b, i32x8 c) {
#if COREMATCHING_HAS_AVX512
    return {_mm256_dpwssd_epi32(c.lanes, a.lanes, b.lanes)};
#elif COREMATCHING_HAS_VNNI
    return {_mm256_dpwssd_avx_epi32(c.lanes, a.lanes, b.lanes)};
#else
    return {_mm256_add_epi32(_mm256_madd_epi16(a.lanes, b.lanes), c.lanes)};
#endif
  }
  void pin() {
    COREMATCHING_PIN(lanes);
  }
};

/// Thirty-two bytes.
struct i8x32 {
  __m256i lanes;

  static i8x32 load(const std::int8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  /// Four bytes, eight times.
  static i8x32 broadcast(std::int32_t bytes) { return {_mm256_set1_epi32(bytes)}; }
  static i8x32 load(const std::uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  static i8x32 broadcast(std::uint8_t value) { return {_mm256_set1_epi8(static_cast<char>(value))}; }
  void store(std::uint8_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  /// What leaves a byte may enter its neighbour.
  template <int Bits>
  i8x32 shifted_left() const {
    return {_mm256_slli_epi16(lanes, Bits)};
  }
  template <int Bits>
  i8x32 shifted_right() const {
    return {_mm256_srli_epi16(lanes, Bits)};
  }
  friend i8x32 operator&(i8x32 a, i8x32 b) { return {_mm256_and_si256(a.lanes, b.lanes)}; }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend i8x32 select_bits(i8x32 mask, i8x32 a, i8x32 b) {
    return {_mm256_or_si256(_mm256_and_si256(mask.lanes, a.lanes), _mm256_andnot_si256(mask.lanes, b.lanes))};
  }
  /// The lower halves of sixteen bytes, then their upper halves.
  static i8x32 nibbles(const std::uint8_t* from) {
    const __m256i twice =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    const __m256i shifted = _mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4));
    return {_mm256_and_si256(shifted, _mm256_set1_epi8(15))};
  }
  /// a[0], b[0], a[1], b[1], ... of sixteen bytes each.
  static i8x32 interleaved(const std::uint8_t* a, const std::uint8_t* b) {
    const __m128i left = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
    const __m128i right = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
    return {_mm256_set_m128i(_mm_unpackhi_epi8(left, right), _mm_unpacklo_epi8(left, right))};
  }
  i8x32 low_nibbles() const { return {_mm256_and_si256(lanes, _mm256_set1_epi8(15))}; }
  i8x32 high_nibbles() const { return {_mm256_and_si256(_mm256_srli_epi16(lanes, 4), _mm256_set1_epi8(15))}; }

  /// a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] with 0 <= a < 128, b signed; |sum| must stay within int16.
  friend i16x16 multiply_byte_pairs(i8x32 a, i8x32 b) { return {_mm256_maddubs_epi16(a.lanes, b.lanes)}; }
  /// Sums of four neighbouring products, 0 <= a < 128, b signed; the sum of two must stay within int16.
  friend i32x8 multiply_byte_quads(i8x32 a, i8x32 b) {
#if COREMATCHING_HAS_AVX512
    return {_mm256_dpbusd_epi32(_mm256_setzero_si256(), a.lanes, b.lanes)};
#elif COREMATCHING_HAS_VNNI
    return {_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), a.lanes, b.lanes)};
#else
    return {_mm256_madd_epi16(_mm256_maddubs_epi16(a.lanes, b.lanes), _mm256_set1_epi16(1))};
#endif
  }
};

struct u8x32 {
  __m256i lanes;

  static u8x32 load(const std::uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  /// The lower halves of sixteen bytes, then their upper halves.
  static u8x32 nibbles(const std::uint8_t* from) { return {i8x32::nibbles(from).lanes}; }
  /// The lowest two bits of eight bytes, then the next two of all, and so on.
  static u8x32 quarters(const std::uint8_t* from) {
    std::int64_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    const __m256i parts = _mm256_srlv_epi64(_mm256_set1_epi64x(bytes), _mm256_setr_epi64x(0, 2, 4, 6));
    return {_mm256_and_si256(parts, _mm256_set1_epi8(3))};
  }
  static u8x32 broadcast(std::uint8_t value) { return {_mm256_set1_epi8(static_cast<char>(value))}; }
  void store(std::uint8_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  /// What leaves a byte may enter its neighbour.
  template <int Bits>
  u8x32 shifted_left() const {
    return {_mm256_slli_epi16(lanes, Bits)};
  }
  template <int Bits>
  u8x32 shifted_right() const {
    return {_mm256_srli_epi16(lanes, Bits)};
  }
  friend u8x32 operator&(u8x32 a, u8x32 b) { return {_mm256_and_si256(a.lanes, b.lanes)}; }
  /// The bits of `a` where `mask` has ones, those of `b` elsewhere.
  friend u8x32 select_bits(u8x32 mask, u8x32 a, u8x32 b) {
    return {_mm256_or_si256(_mm256_and_si256(mask.lanes, a.lanes), _mm256_andnot_si256(mask.lanes, b.lanes))};
  }
  /// Modulo 256.
  friend u8x32 operator+(u8x32 a, u8x32 b) { return {_mm256_add_epi8(a.lanes, b.lanes)}; }

  /// c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1], modulo 2^16; the two products must stay within int16.
  friend i16x16 multiply_add_pairs(u8x32 a, i8x32 b, i16x16 c) {
    return {_mm256_add_epi16(_mm256_maddubs_epi16(a.lanes, b.lanes), c.lanes)};
  }
  /// Sums of four neighbouring products; without VNNI the sum of two must stay within int16.
  friend i32x8 multiply_quads(u8x32 a, i8x32 b) { return multiply_byte_quads(i8x32{a.lanes}, b); }
#if COREMATCHING_HAS_VNNI
  /// c[i] + the sum of the four products a[4 i + j] b[4 i + j]
  friend i32x8 multiply_add_quads(u8x32 a, i8x32 b, i32x8 c) {
#if COREMATCHING_HAS_AVX512
    return {_mm256_dpbusd_epi32(c.lanes, a.lanes, b.lanes)};
#else
    return {_mm256_dpbusd_avx_epi32(c.lanes, a.lanes, b.lanes)};
#endif
  }
#endif
};

/// Four vectors side by side: the elements 8 v..8 v + 8 of all four, element by element, as vector v.
inline void interleave(std::array<u8x32, 4>& of) {
  // Within the halves of the registers, of which each holds sixteen elements.
  const __m256i ab_low = _mm256_unpacklo_epi8(of[0].lanes, of[1].lanes);
  const __m256i ab_high = _mm256_unpackhi_epi8(of[0].lanes, of[1].lanes);
  const __m256i cd_low = _mm256_unpacklo_epi8(of[2].lanes, of[3].lanes);
  const __m256i cd_high = _mm256_unpackhi_epi8(of[2].lanes, of[3].lanes);
  const __m256i first = _mm256_unpacklo_epi16(ab_low, cd_low), second = _mm256_unpackhi_epi16(ab_low, cd_low);
  const __m256i third = _mm256_unpacklo_epi16(ab_high, cd_high),
                fourth = _mm256_unpackhi_epi16(ab_high, cd_high);
  of[0].lanes = _mm256_permute2x128_si256(first, second, 0x20);
  of[1].lanes = _mm256_permute2x128_si256(third, fourth, 0x20);
  of[2].lanes = _mm256_permute2x128_si256(first, second, 0x31);
  of[3].lanes = _mm256_permute2x128_si256(third, fourth, 0x31);
}

/// Keeps a value in its register: compilers else fold a load into every use, and loads are what kernels of
/// decode run out of.
inline void keep_in_register(i16x16& x) {
#if defined(__GNUC__)
  asm("" : "+x"(x.lanes));
#endif
}

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

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

// SPDX-License-Identifier: Apache-2.0
// f32x8.hpp in AVX2 registers.
#pragma once

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"

#if COREMATCHING_HAS_AVX2

#include <immintrin.h>

#include <cstdint>

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

struct f32x8 {
  __m256 lanes;

  static f32x8 zero() { return {_mm256_setzero_ps()}; }
  static f32x8 broadcast(float value) { return {_mm256_set1_ps(value)}; }
  static f32x8 broadcast(f16 value) {
    return {_mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(value.bits)))};
  }
  static f32x8 load(const float* from) { return {_mm256_loadu_ps(from)}; }
  static f32x8 load(const f16* from) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
  }
  /// Binary16 numbers whose upper and lower bytes stand apart.
  static f32x8 load_bytes(const std::uint8_t* upper, const std::uint8_t* lower) {
    return of_bytes(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(upper)),
                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(lower)));
  }
  /// The same where all have this lower byte.
  static f32x8 load_bytes(const std::uint8_t* upper, std::uint8_t lower) {
    return of_bytes(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(upper)),
                    _mm_set1_epi8(static_cast<char>(lower)));
  }
  static f32x8 load(const bf16* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  static f32x8 load(const std::int8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
  }
  void store(float* to) const { _mm256_storeu_ps(to, lanes); }
  void store(f16* to) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT));
  }

  /// a * b + c, rounded once.
  friend f32x8 fma(f32x8 a, f32x8 b, f32x8 c) { return {_mm256_fmadd_ps(a.lanes, b.lanes, c.lanes)}; }
  friend f32x8 operator+(f32x8 a, f32x8 b) { return {_mm256_add_ps(a.lanes, b.lanes)}; }
  friend f32x8 operator-(f32x8 a, f32x8 b) { return {_mm256_sub_ps(a.lanes, b.lanes)}; }
  friend f32x8 operator*(f32x8 a, f32x8 b) { return {_mm256_mul_ps(a.lanes, b.lanes)}; }
  friend f32x8 operator/(f32x8 a, f32x8 b) { return {_mm256_div_ps(a.lanes, b.lanes)}; }
  /// The larger and the smaller of two values; NaN where b is.
  friend f32x8 larger(f32x8 a, f32x8 b) { return {_mm256_max_ps(a.lanes, b.lanes)}; }
  friend f32x8 smaller(f32x8 a, f32x8 b) { return {_mm256_min_ps(a.lanes, b.lanes)}; }
  /// To the nearest integer, ties to even.
  f32x8 rounded() const { return {_mm256_round_ps(lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  /// a * 2^n for integers n <= 128; maybe 0 where n < -126.
  friend f32x8 scaled_by_power(f32x8 a, f32x8 n) {
    const __m256i biased = _mm256_cvtps_epi32(_mm256_add_ps(n.lanes, _mm256_set1_ps(127)));
    const __m256i exponent = _mm256_max_epi32(biased, _mm256_setzero_si256());
    return {_mm256_mul_ps(a.lanes, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))};
  }
  f32x8 magnitude() const { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), lanes)}; }
  /// The larger of values without sign, where NaN is larger than infinity: their bits, compared as integers.
  friend f32x8 larger_magnitude(f32x8 a, f32x8 b) {
    return {
        _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a.lanes), _mm256_castps_si256(b.lanes)))};
  }

  float sum() const {
    const __m128 quad = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
  }
  /// The largest of values without sign, NaN if there is one.
  float largest_magnitude() const {
    const __m256i bits = _mm256_castps_si256(lanes);
    const __m128i quad = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    const __m128i pair = _mm_max_epi32(quad, _mm_unpackhi_epi64(quad, quad));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(pair, _mm_shuffle_epi32(pair, 1))));
  }

 private:
  static f32x8 of_bytes(__m128i upper, __m128i lower) {
    return {_mm256_cvtph_ps(_mm_unpacklo_epi8(lower, upper))};
  }
};

/// Asks for the cache line of `address`; never faults. Compilers take a function that does nothing else for
/// one without effect and drop calls of it: the empty statement is one.
inline void prefetch(const void* address) {
  COREMATCHING_KEEP();
  _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
}
/// As far as the second level of caches, which keeps no buffer of the first one busy meanwhile.
inline void prefetch_far(const void* address) {
  COREMATCHING_KEEP();
  _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T1);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

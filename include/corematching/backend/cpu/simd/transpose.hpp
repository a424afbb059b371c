// SPDX-License-Identifier: Apache-2.0
// Transposes eight vectors of eight 32-bit elements: lane j of vector i becomes lane i of vector j. An
// element of an i16x16 is a pair of neighbours, one of a u8x32 four of them.
#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "corematching/backend/cpu/simd/i16x16.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

#if COREMATCHING_HAS_AVX2

inline void transpose(std::array<f32x8, 8>& rows) {
  // Within the halves of the registers first: 2 x 2 of elements, then of pairs of elements.
  __m256 quads[8];
  for (std::size_t i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(rows[i].lanes, rows[i + 1].lanes);
    const __m256 b = _mm256_unpackhi_ps(rows[i].lanes, rows[i + 1].lanes);
    const __m256 c = _mm256_unpacklo_ps(rows[i + 2].lanes, rows[i + 3].lanes);
    const __m256 d = _mm256_unpackhi_ps(rows[i + 2].lanes, rows[i + 3].lanes);
    quads[i] = _mm256_shuffle_ps(a, c, 0x44);
    quads[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    quads[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    quads[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    rows[i].lanes = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4].lanes = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

inline void transpose(std::array<i16x16, 8>& rows) {
  std::array<f32x8, 8> elements;
  for (std::size_t i = 0; i < 8; ++i) elements[i].lanes = _mm256_castsi256_ps(rows[i].lanes);
  transpose(elements);
  for (std::size_t i = 0; i < 8; ++i) rows[i].lanes = _mm256_castps_si256(elements[i].lanes);
}

inline void transpose(std::array<u8x32, 8>& rows) {
  std::array<i16x16, 8> elements;
  for (std::size_t i = 0; i < 8; ++i) elements[i].lanes = rows[i].lanes;
  transpose(elements);
  for (std::size_t i = 0; i < 8; ++i) rows[i].lanes = elements[i].lanes;
}

#elif COREMATCHING_HAS_NEON

namespace detail {

/// 4 x 4 elements: 2 x 2 of them first, then of pairs of elements.
inline void transpose(float32x4_t& a, float32x4_t& b, float32x4_t& c, float32x4_t& d) {
  const float64x2_t ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
  const float64x2_t ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
  const float64x2_t cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
  const float64x2_t cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
  a = vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even));
  b = vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd));
  c = vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even));
  d = vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd));
}

}  // namespace detail

inline void transpose(std::array<f32x8, 8>& rows) {
  for (std::size_t i = 0; i < 8; i += 4) {
    detail::transpose(rows[i].low, rows[i + 1].low, rows[i + 2].low, rows[i + 3].low);
    detail::transpose(rows[i].high, rows[i + 1].high, rows[i + 2].high, rows[i + 3].high);
  }
  for (std::size_t i = 0; i < 4; ++i) std::swap(rows[i].high, rows[i + 4].low);
}

inline void transpose(std::array<i16x16, 8>& rows) {
  std::array<f32x8, 8> elements;
  for (std::size_t i = 0; i < 8; ++i)
    elements[i] = {vreinterpretq_f32_s16(rows[i].low), vreinterpretq_f32_s16(rows[i].high)};
  transpose(elements);
  for (std::size_t i = 0; i < 8; ++i)
    rows[i] = {vreinterpretq_s16_f32(elements[i].low), vreinterpretq_s16_f32(elements[i].high)};
}

#else

inline void transpose(std::array<f32x8, 8>& rows) {
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < i; ++j) std::swap(rows[i].lanes[j], rows[j].lanes[i]);
}

inline void transpose(std::array<i16x16, 8>& rows) {
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < i; ++j)
      for (std::size_t half = 0; half < 2; ++half)
        std::swap(rows[i].lanes[2 * j + half], rows[j].lanes[2 * i + half]);
}

#endif

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Transposes eight vectors of eight 32-bit elements: lane j of vector i becomes lane i of vector j. An
// element of an i16x16 is a pair of neighbours.
#pragma once

#include <array>
#include <utility>

#include "corematching/backend/cpu/simd_int16.hpp"

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

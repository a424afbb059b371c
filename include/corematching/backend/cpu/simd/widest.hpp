// SPDX-License-Identifier: Apache-2.0
// The widest vectors that the instruction set has, for kernels that compute from packed memory, where nothing
// but their number matters. The others are better off with eight lanes: rows and blocks end in odd places.
#pragma once

#include <bit>

#include "corematching/backend/cpu/simd/avx512.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

#if COREMATCHING_HAS_AVX512
using wide_f32 = f32x16;
using wide_i32 = i32x16;
using wide_i16 = i16x32;
using wide_i8 = i8x64;
using wide_u8 = u8x64;
#else
using wide_f32 = f32x8;
using wide_i32 = i32x8;
using wide_i16 = i16x16;
#if COREMATCHING_HAS_AVX2
using wide_i8 = i8x32;
using wide_u8 = u8x32;
#endif
#endif

/// Numbers of 32 bits in such a vector.
inline constexpr index wide_lanes = sizeof(wide_f32) / sizeof(float);

/// Blocks of 32 numbers of which such a vector holds a half each.
inline constexpr index wide_blocks = wide_lanes / 8;

/// eight[first + i / Lanes] in lane i: a factor for the lanes of each block.
template <int Lanes>
wide_f32 spread_to_blocks(const float* eight, int first) {
#if COREMATCHING_HAS_AVX512
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i block =
      _mm512_add_epi32(_mm512_srli_epi32(lane, std::countr_zero(unsigned{Lanes})), _mm512_set1_epi32(first));
  return {_mm512_permutexvar_ps(block, _mm512_castps256_ps512(_mm256_loadu_ps(eight)))};
#elif COREMATCHING_HAS_AVX2
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i block =
      _mm256_add_epi32(_mm256_srli_epi32(lane, std::countr_zero(unsigned{Lanes})), _mm256_set1_epi32(first));
  return {_mm256_permutevar8x32_ps(_mm256_loadu_ps(eight), block)};
#else
  float lanes[wide_lanes];
  for (int i = 0; i < int{wide_lanes}; ++i) lanes[i] = eight[first + i / Lanes];
  return wide_f32::load(lanes);
#endif
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

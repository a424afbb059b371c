// SPDX-License-Identifier: Apache-2.0
// The widest vectors that the instruction set has, for kernels that compute from packed memory, where nothing
// but their number matters. The others are better off with eight lanes: rows and blocks end in odd places.
#pragma once

#include <array>
#include <cstdint>

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
#if COREMATCHING_HAS_VNNI
using wide_i8 = i8x32;
using wide_u8 = u8x32;
#endif
#endif

/// Numbers of 32 bits in such a vector.
inline constexpr index wide_lanes = sizeof(wide_f32) / sizeof(float);

/// Blocks of 32 numbers of which such a vector holds a half each.
inline constexpr index wide_blocks = wide_lanes / 8;

/// As many bytes without sign as there are 16-bit lanes.
inline wide_i16 widened_bytes(const std::uint8_t* from) {
#if COREMATCHING_HAS_AVX512
  return wide_i16::widened(from);
#else
  return u8x16::load(from).widen_unsigned();
#endif
}

/// The first and the last sixteen numbers of each of wide_blocks blocks.
inline std::array<wide_i16, 2> halves_of_blocks(const std::int16_t* from) {
#if COREMATCHING_HAS_AVX512
  const wide_i16 one = wide_i16::load(from), other = wide_i16::load(from + 32);
  return {first_halves(one, other), last_halves(one, other)};
#else
  return {wide_i16::load(from), wide_i16::load(from + 16)};
#endif
}

/// from[i] in the lanes of block i.
inline wide_f32 broadcast_to_blocks(const float* from) {
#if COREMATCHING_HAS_AVX512
  return wide_f32::broadcast_two(from);
#else
  return wide_f32::broadcast(*from);
#endif
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

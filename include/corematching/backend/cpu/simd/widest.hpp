// SPDX-License-Identifier: Apache-2.0
// The widest vectors that the instruction set has, for kernels that compute from packed memory, where nothing
// but their number matters. The others are better off with eight lanes: rows and blocks end in odd places.
#pragma once

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

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

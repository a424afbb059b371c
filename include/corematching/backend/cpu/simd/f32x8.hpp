// SPDX-License-Identifier: Apache-2.0
// Eight binary32 lanes: registers of AVX2 or NEON where the compiler targets them, an array otherwise. Loads
// widen every storage type, so a kernel is written once for all of them.
#pragma once

#include "corematching/backend/cpu/simd/f32x8_avx2.hpp"
#include "corematching/backend/cpu/simd/f32x8_neon.hpp"
#include "corematching/backend/cpu/simd/f32x8_scalar.hpp"

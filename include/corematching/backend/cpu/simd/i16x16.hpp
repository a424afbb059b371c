// SPDX-License-Identifier: Apache-2.0
// Sixteen int16 lanes and the eight int32 sums of products of their neighbours: what the block formats are
// multiplied with. Registers of AVX2 or NEON where the compiler targets them, arrays otherwise.
#pragma once

#include "corematching/backend/cpu/simd/i16x16_avx2.hpp"
#include "corematching/backend/cpu/simd/i16x16_neon.hpp"
#include "corematching/backend/cpu/simd/i16x16_scalar.hpp"

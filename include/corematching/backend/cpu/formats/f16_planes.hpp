// SPDX-License-Identifier: Apache-2.0
// The kernels' part of f16_planes.
#pragma once

#include <array>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/core/formats/f16_planes.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<f16_planes> {
  template <class Vector>
  static Vector load(plane_block from) {
    return Vector::load_bytes(from.upper, from.lower);
  }
  static f32x16 load_coarse(const std::uint8_t* upper) {
    return f32x16::load_bytes(upper, f16_planes::middle_byte);
  }
#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(plane_block from, __mmask32 inside) {
    const __m512i upper = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(inside, from.upper)),
                  lower = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(inside, from.lower)),
                  bits = _mm512_or_si512(_mm512_slli_epi16(upper, 8), lower);
    return {f32x16{_mm512_cvtph_ps(_mm512_castsi512_si256(bits))},
            f32x16{_mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1))}};
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

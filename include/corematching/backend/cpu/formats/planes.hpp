// SPDX-License-Identifier: Apache-2.0
// The kernels' part of formats of quants in two planes: blocks are put together and are then those of the
// whole format. Products of few tokens read planes as they are (decode/plane_kernels.hpp).
#pragma once

#include <array>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <quant_plane_format Q>
struct merged_kernels {
  using whole = format_kernels<typename Q::whole>;
  using token = typename whole::token;

  static std::array<i16x16, 2> quants(plane_block block) {
    const auto quants = merged(block);
    return whole::quants(quants.data());
  }
  static std::array<i16x16, 4> quant_pairs(plane_block a, plane_block b) {
    const auto first = merged(a), second = merged(b);
    return whole::quant_pairs(first.data(), second.data());
  }
#if COREMATCHING_HAS_AVX2
  static u8x32 bytes(plane_block block, std::uint8_t more) {
    const auto quants = merged(block);
    return whole::bytes(quants.data(), more);
  }
#endif
#if COREMATCHING_HAS_AMX
  static std::array<f32x16, 2> numbers(plane_block block, __m512 scale) {
    const auto quants = merged(block);
    return whole::numbers(quants.data(), scale);
  }
#endif

 private:
  static auto merged(plane_block from) {
    return Q::merged(from.upper, from.lower);
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

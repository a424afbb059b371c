// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q8_0_planes. What prefill takes most is put together in
// registers.
#pragma once

#include <array>
#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/planes.hpp"
#include "corematching/backend/cpu/formats/q8_0.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/formats/q8_0_planes.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q8_0_planes> : merged_kernels<q8_0_planes> {
  static std::array<i16x16, 2> quants(plane_block block) {
    const i16x16 offset = i16x16::broadcast(q8_0_planes::merged_offset);
    const i16x16 upper = u8x16::load(block.upper).widen_unsigned(),
                 lower = u8x16::load(block.lower).widen_unsigned();
    return {upper.low_nibbles().shifted_left<4>() + lower.low_nibbles() - offset,
            upper.high_nibbles().shifted_left<4>() + lower.high_nibbles() - offset};
  }
#if COREMATCHING_HAS_VNNI
  static u8x32 bytes(plane_block block, std::uint8_t more) {
    return u8x32::nibbles(block.upper).shifted_left<4>() + u8x32::nibbles(block.lower) +
           u8x32::broadcast(static_cast<std::uint8_t>(more - q8_0_planes::merged_offset));
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q4_k_planes: pieces of a block are put together. Products of few tokens read planes as
// they are (decode/plane_kernels.hpp).
#pragma once

#include <cstdint>

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/super_blocks.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/core/formats/q4_k_planes.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q4_k_planes> {
  using token = std::int8_t;

  template <int Piece>
  static i16x32 quants(const split_super_block& block) {
    constexpr index at = Piece * q4_k_planes::piece_bytes;
    alignas(32) std::uint8_t merged[block_size];
    q4_k_planes::merge(block.quants.upper + at, block.quants.lower + at, merged);
    return i16x32::load_widened(merged);
  }

#if COREMATCHING_HAS_AVX2
  template <int Piece>
  static u8x32 bytes(const split_super_block& block) {
    constexpr index at = Piece * q4_k_planes::piece_bytes;
    return u8x32::quarters(block.quants.upper + at).template shifted_left<2>() +
           u8x32::quarters(block.quants.lower + at);
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

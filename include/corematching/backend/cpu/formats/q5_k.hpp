// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q5_k: super_blocks.hpp says what it is.
#pragma once

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/super_blocks.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/q5_k.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q5_k> : factored_kernels {
  template <int Piece>
  static i16x32 quants(const q5_k::stored& block) {
    const i16x32 pair = i16x32::load_widened(block.quants[Piece / 2]);
    const i16x32 fifth = moved_bits<Piece, 1, 4>(i16x32::load_widened(block.fifth_bits));
    if constexpr (Piece % 2 == 0) return moved_bits<0, 4, 0>(pair) | fifth;
    return pair.shifted_right<4>() | fifth;
  }

#if COREMATCHING_HAS_AVX2
  template <int Piece>
  static u8x32 bytes(const q5_k::stored& block) {
    u8x32 pair = u8x32::load(block.quants[Piece / 2]), fifth = u8x32::load(block.fifth_bits);
    if constexpr (Piece % 2 == 1) pair = pair.shifted_right<4>();
    if constexpr (Piece < 4)
      fifth = fifth.shifted_left<4 - Piece>();
    else
      fifth = fifth.shifted_right<Piece - 4>();
    return select_bits(u8x32::broadcast(16), fifth, pair & u8x32::broadcast(15));
  }
#endif
#if COREMATCHING_HAS_AVX512
  template <int Piece>
  static u8x64 bytes_of_two(const q5_k::stored& block) {
    return u8x64::nibbles(block.quants[Piece / 2]) | u8x64::two_bits<Piece>(block.fifth_bits, 16);
  }
#endif
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

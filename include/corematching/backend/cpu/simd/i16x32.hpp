// SPDX-License-Identifier: Apache-2.0
// Thirty-two lanes of 16 bits: one register of AVX-512, two i16x16 elsewhere. For kernels whose unit of work
// is a block of thirty-two weights.
#pragma once

#include <cstdint>

#include "corematching/backend/cpu/simd/avx512.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

#if !COREMATCHING_HAS_AVX512

struct i16x32 {
  i16x16 low, high;

  static i16x32 load(const std::int16_t* from) { return {i16x16::load(from), i16x16::load(from + 16)}; }
  static i16x32 broadcast(std::int16_t value) {
    const i16x16 half = i16x16::broadcast(value);
    return {half, half};
  }
  static i16x32 load_widened(const std::uint8_t* from) {
    return {u8x16::load(from).widen_unsigned(), u8x16::load(from + 16).widen_unsigned()};
  }
  static i16x32 load_widened(const std::int8_t* from) {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(from);
    return {u8x16::load(bytes).widen_signed(), u8x16::load(bytes + 16).widen_signed()};
  }
  void store(std::int16_t* to) const {
    low.store(to);
    high.store(to + 16);
  }

  template <int Bits>
  i16x32 shifted_left() const {
    return {low.template shifted_left<Bits>(), high.template shifted_left<Bits>()};
  }
  template <int Bits>
  i16x32 shifted_right() const {
    return {low.template shifted_right<Bits>(), high.template shifted_right<Bits>()};
  }
  friend i16x32 operator&(i16x32 a, i16x32 b) { return {a.low & b.low, a.high & b.high}; }
  friend i16x32 operator|(i16x32 a, i16x32 b) { return {a.low | b.low, a.high | b.high}; }
  friend i16x32 operator-(i16x32 a, i16x32 b) { return {a.low - b.low, a.high - b.high}; }
};

inline void keep_in_register(i16x32& x) {
  keep_in_register(x.low);
  keep_in_register(x.high);
}

#endif

/// The sum of all products a[i] b[i], spread over the lanes.
inline wide_i32 multiply_blocks(i16x32 a, i16x32 b) {
#if COREMATCHING_HAS_AVX512
  return {_mm512_madd_epi16(a.lanes, b.lanes)};
#else
  return multiply_add_pairs(a.high, b.high, multiply_add_pairs(a.low, b.low, wide_i32::zero()));
#endif
}

/// `Count` bits of each lane, those from bit From on, at bit To, and zeros.
template <int From, int Count, int To>
i16x32 moved_bits(i16x32 lanes) {
  const i16x32 mask = i16x32::broadcast(static_cast<std::int16_t>(((1 << Count) - 1) << To));
  if constexpr (From < To)
    return lanes.template shifted_left<To - From>() & mask;
  else if constexpr (From > To)
    return lanes.template shifted_right<From - To>() & mask;
  else
    return lanes & mask;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The keys of eight consecutive activations in registers of AVX2 or NEON. Where the compiler targets neither,
// COREMATCHING_HAS_SIMD is 0 and there is no such type: keys are looked at one by one.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

#if COREMATCHING_HAS_AVX2
#include <immintrin.h>
#elif COREMATCHING_HAS_NEON
#include <arm_neon.h>
#endif

#if COREMATCHING_HAS_SIMD

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Row m: the lanes whose bit is set in m, moved to the front; `Bytes` bytes move for each.
template <unsigned Lanes, unsigned Bytes>
inline constexpr auto lanes_to_front = [] {
  std::array<std::array<std::uint8_t, Lanes * Bytes>, 1u << Lanes> rows{};
  for (unsigned mask = 0; mask < rows.size(); ++mask) {
    std::size_t next = 0;
    for (unsigned lane = 0; lane < Lanes; ++lane)
      for (unsigned byte = 0; byte < Bytes && (mask >> lane & 1u) != 0; ++byte)
        rows[mask][next++] = static_cast<std::uint8_t>(lane * Bytes + byte);
  }
  return rows;
}();

#if COREMATCHING_HAS_AVX2

struct key_lanes {
  static constexpr index count = 8;
  __m256i lanes;

  static key_lanes broadcast(std::int32_t key) { return {_mm256_set1_epi32(key)}; }
  static key_lanes load(const std::int32_t* keys) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys))};
  }
  static key_lanes load(const float* a) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a))}; }
  static key_lanes load(const f16* a) { return widened(a); }
  static key_lanes load(const bf16* a) { return widened(a); }
  void store(std::int32_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes); }
  /// The lanes whose bit is set in `mask`, in order; what follows them up to `count` means nothing.
  void store_some(unsigned mask, std::int32_t* to) const {
    const std::uint8_t* order = lanes_to_front<8, 1>[mask].data();
    const __m256i from = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(order)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(lanes, from));
  }

  friend key_lanes operator-(key_lanes a, key_lanes b) { return {_mm256_sub_epi32(a.lanes, b.lanes)}; }
  friend key_lanes operator&(key_lanes a, key_lanes b) { return {_mm256_and_si256(a.lanes, b.lanes)}; }
  friend key_lanes larger(key_lanes a, key_lanes b) { return {_mm256_max_epi32(a.lanes, b.lanes)}; }
  /// -1 where it holds, 0 elsewhere.
  friend key_lanes operator>(key_lanes a, key_lanes b) { return {_mm256_cmpgt_epi32(a.lanes, b.lanes)}; }
  /// Bit i: the sign of lane i.
  unsigned signs() const { return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes))); }

 private:
  static key_lanes widened(const void* sixteen_bits) {
    return {_mm256_cvtepi16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(sixteen_bits)))};
  }
};

#else

struct key_lanes {
  static constexpr index count = 8;
  int32x4_t low, high;

  static key_lanes broadcast(std::int32_t key) { return {vdupq_n_s32(key), vdupq_n_s32(key)}; }
  static key_lanes load(const std::int32_t* keys) { return {vld1q_s32(keys), vld1q_s32(keys + 4)}; }
  static key_lanes load(const float* a) {
    return {vreinterpretq_s32_f32(vld1q_f32(a)), vreinterpretq_s32_f32(vld1q_f32(a + 4))};
  }
  static key_lanes load(const f16* a) { return widened(&a->bits); }
  static key_lanes load(const bf16* a) { return widened(&a->bits); }
  void store(std::int32_t* to) const {
    vst1q_s32(to, low);
    vst1q_s32(to + 4, high);
  }
  /// The lanes whose bit is set in `mask`, in order; what follows them up to `count` means nothing.
  void store_some(unsigned mask, std::int32_t* to) const {
    vst1q_s32(to, to_front(low, mask & 15u));
    vst1q_s32(to + std::popcount(mask & 15u), to_front(high, mask >> 4));
  }

  friend key_lanes operator-(key_lanes a, key_lanes b) {
    return {vsubq_s32(a.low, b.low), vsubq_s32(a.high, b.high)};
  }
  friend key_lanes operator&(key_lanes a, key_lanes b) {
    return {vandq_s32(a.low, b.low), vandq_s32(a.high, b.high)};
  }
  friend key_lanes larger(key_lanes a, key_lanes b) {
    return {vmaxq_s32(a.low, b.low), vmaxq_s32(a.high, b.high)};
  }
  /// -1 where it holds, 0 elsewhere.
  friend key_lanes operator>(key_lanes a, key_lanes b) {
    return {vreinterpretq_s32_u32(vcgtq_s32(a.low, b.low)), vreinterpretq_s32_u32(vcgtq_s32(a.high, b.high))};
  }
  /// Bit i: the sign of lane i.
  unsigned signs() const {
    static constexpr std::int32_t first[] = {1, 2, 4, 8}, last[] = {16, 32, 64, 128};
    const int32x4_t bits = vorrq_s32(vandq_s32(vshrq_n_s32(low, 31), vld1q_s32(first)),
                                     vandq_s32(vshrq_n_s32(high, 31), vld1q_s32(last)));
    return static_cast<unsigned>(vaddvq_s32(bits));
  }

 private:
  static key_lanes widened(const std::uint16_t* bits) {
    const int16x8_t keys = vreinterpretq_s16_u16(vld1q_u16(bits));
    return {vmovl_s16(vget_low_s16(keys)), vmovl_high_s16(keys)};
  }
  static int32x4_t to_front(int32x4_t half, unsigned mask) {
    const uint8x16_t order = vld1q_u8(lanes_to_front<4, 4>[mask].data());
    return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(half), order));
  }
};

#endif

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

#endif

// SPDX-License-Identifier: Apache-2.0
// Products of tiles in AMX registers: 16 rows of 32 bfloat16 numbers times 32 rows of 16, summed in binary32.
// One instruction makes 8192 products.
//
// A bfloat16 has 8 significant bits: rounding moves a number by 2^-8 of itself at most. What needs more is a
// sum of two, the number rounded and the rest rounded, which leaves 2^-16 of it. Products of two such sums
// leave out rest times rest, as much again. Tiles take numbers and products below 2^-126 for zero, those of
// rests too, so products below 2^-110 lose something. What is infinite, or is when rounded (from 3.39e38 on),
// makes NaN.
#pragma once

#include "corematching/core/config.hpp"

#if COREMATCHING_HAS_AMX

#include <immintrin.h>

#include <atomic>
#include <cstdint>

#include "corematching/core/dtype.hpp"
#include "corematching/core/instruction_set.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Rows of a tile register, and bfloat16 numbers in each.
inline constexpr index tile_rows = 16;
inline constexpr index tile_depth = 32;
inline constexpr index tile_elements = tile_rows * tile_depth;
/// Outputs of one kernel call along either side: two tiles.
inline constexpr index strip_rows = 2 * tile_rows;
/// Elements of one part of one step of a strip, and sums of one kernel call.
inline constexpr index step_elements = 2 * tile_elements;
inline constexpr index strip_sums = strip_rows * strip_rows;

/// What the tile registers hold (Intel 64 and IA-32 Architectures SDM, LDTILECFG).
struct alignas(64) tile_shapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
/// Static, since GCC 12 believes that the instruction reads eight bytes of it and keeps no more on the stack.
inline constexpr tile_shapes whole_tiles;

/// While it lives, all tile registers of this thread are 16 rows of 64 bytes.
class tile_session {
 public:
  tile_session() { _tile_loadconfig(&whole_tiles); }
  tile_session(const tile_session&) = delete;
  tile_session& operator=(const tile_session&) = delete;
  ~tile_session() { _tile_release(); }
};

/// Asks for the cache lines of `bytes` bytes, for the second-level cache; never faults.
inline void prefetch_bytes(const void* from, index bytes) {
  COREMATCHING_KEEP();
  for (index i = 0; i < bytes; i += 64) _mm_prefetch(static_cast<const char*>(from) + i, _MM_HINT_T1);
}

/// Two strips of `steps` times tile_depth elements, each step as `Parts` pairs of tiles: `a` has rows of
/// consecutive elements, `b` rows of 16 pairs of consecutive elements, one pair for each of its columns.
/// Meanwhile `ahead` is asked for, some bytes with each step.
template <int AParts, int BParts>
struct strip_pair {
  const bf16* a;
  const bf16* b;
  index steps;
  const bf16* ahead;
  index ahead_of_step;
};

/// sums[i][j] (+)= sum over k of a[i][k] b[k][j], as four tiles: those of a's first tile first. Sums begin at
/// zero where `first`.
template <int AParts, int BParts>
[[gnu::noinline]] void add_tile_products(strip_pair<AParts, BParts> in, float* sums, bool first) {
  static_assert(AParts <= 2 && BParts <= 2);
  constexpr int row_bytes = 64, tile = tile_rows * tile_rows;
  // The intrinsics do not tell the compiler what they read, and as macros want brackets around sums.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, row_bytes);
    _tile_loadd(1, (sums + tile), row_bytes);
    _tile_loadd(2, (sums + 2 * tile), row_bytes);
    _tile_loadd(3, (sums + 3 * tile), row_bytes);
  }
  const bf16 *a = in.a, *b = in.b, *ahead = in.ahead;
  for (index step = 0; step < in.steps; ++step, a += AParts * step_elements, b += BParts * step_elements) {
    _tile_loadd(4, a, row_bytes);
    _tile_loadd(6, b, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, (b + tile_elements), row_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, (a + tile_elements), row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    prefetch_bytes(ahead, in.ahead_of_step * index{sizeof(bf16)});
    ahead += in.ahead_of_step;
    if constexpr (AParts == 2) {  // a's rest, while b's first part is there
      _tile_loadd(4, (a + step_elements), row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, (a + step_elements + tile_elements), row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    if constexpr (BParts == 2) {
      if constexpr (AParts == 2) {
        _tile_loadd(4, a, row_bytes);
        _tile_loadd(5, (a + tile_elements), row_bytes);
      }
      _tile_loadd(6, (b + step_elements), row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, (b + step_elements + tile_elements), row_bytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, row_bytes);
  _tile_stored(1, (sums + tile), row_bytes);
  _tile_stored(2, (sums + 2 * tile), row_bytes);
  _tile_stored(3, (sums + 3 * tile), row_bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

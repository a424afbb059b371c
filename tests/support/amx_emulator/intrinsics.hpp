// SPDX-License-Identifier: Apache-2.0
// AMX's tile registers and the conversions to bfloat16 in plain C++, in the place of the compiler's
// intrinsics: included before everything else, it lets kernels for AMX run on any CPU with AVX-512. The
// instructions are those of the Intel 64 and IA-32 Architectures SDM (TILELOADD, TDPBF16PS, VCVTNE2PS2BF16),
// with tiles as tile_session shapes them.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace amx_emulator {

inline constexpr int rows = 16, row_bytes = 64, pairs = 16;

struct tile {
  alignas(64) unsigned char bytes[rows][row_bytes];
};
inline thread_local tile tiles[8];
inline thread_local bool configured = false;

inline void require_configured() {
  if (!configured) __builtin_trap();  // as the instruction faults
}

inline void zero(int to) {
  require_configured();
  tiles[to] = {};
}
inline void load(int to, const void* from, std::size_t stride) {
  require_configured();
  for (int row = 0; row < rows; ++row)
    std::memcpy(tiles[to].bytes[row],
                static_cast<const unsigned char*>(from) + static_cast<std::size_t>(row) * stride, row_bytes);
}
inline void store(int from, void* to, std::size_t stride) {
  require_configured();
  for (int row = 0; row < rows; ++row)
    std::memcpy(static_cast<unsigned char*>(to) + static_cast<std::size_t>(row) * stride,
                tiles[from].bytes[row], row_bytes);
}

template <class T>
T element(const tile& of, int row, int i) {
  T value;
  std::memcpy(&value, of.bytes[row] + static_cast<std::size_t>(i) * sizeof value, sizeof value);
  return value;
}

/// Numbers below 2^-126 are zero.
inline float flushed(float x) {
  return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}
inline float widened(std::uint16_t x) {
  return flushed(std::bit_cast<float>(std::uint32_t{x} << 16));
}

/// sum[m][n] += a[m][2 k] b[k][2 n], then + a[m][2 k + 1] b[k][2 n + 1], for each k
inline void multiply(int sum, int a, int b) {
  require_configured();
  for (int m = 0; m < rows; ++m)
    for (int n = 0; n < pairs; ++n) {
      float total = element<float>(tiles[sum], m, n);
      for (int k = 0; k < rows; ++k)
        for (int i = 0; i < 2; ++i)
          total = flushed(std::fma(widened(element<std::uint16_t>(tiles[a], m, 2 * k + i)),
                                   widened(element<std::uint16_t>(tiles[b], k, 2 * n + i)), total));
      std::memcpy(tiles[sum].bytes[m] + static_cast<std::size_t>(n) * sizeof total, &total, sizeof total);
    }
}

inline std::uint16_t rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(flushed(x));
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline __m512bh to_bf16(__m512 high, __m512 low) {
  alignas(64) float from[2][16];
  _mm512_store_ps(from[0], low);
  _mm512_store_ps(from[1], high);
  alignas(64) std::uint16_t to[32];
  for (std::size_t i = 0; i < 32; ++i) to[i] = rounded(from[i / 16][i % 16]);
  return reinterpret_cast<__m512bh>(_mm512_load_si512(to));
}

}  // namespace amx_emulator

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _mm512_cvtne2ps_pbh
#define _tile_loadconfig(shapes) (static_cast<void>(shapes), amx_emulator::configured = true)
#define _tile_release() (amx_emulator::configured = false)
#define _tile_zero(to) amx_emulator::zero(to)
#define _tile_loadd(to, from, stride) amx_emulator::load(to, from, stride)
#define _tile_stored(from, to, stride) amx_emulator::store(from, to, stride)
#define _tile_dpbf16ps(sum, a, b) amx_emulator::multiply(sum, a, b)
#define _mm512_cvtne2ps_pbh(high, low) amx_emulator::to_bf16(high, low)

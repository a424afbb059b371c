// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in two planes with a token: of both planes, of the upper one alone, which is a coarse
// form of the row, and of the lower one, which makes that exact. Products of integers are exact and summed
// over one block, so coarse and fine sums together differ from those of both planes by the rounding of
// binary32 alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// Which planes of a row take part.
enum class planes : std::uint8_t { both, upper, lower };

namespace detail {

/// What quants of these planes are multiplied by, and stored larger by.
template <plane_format Q, planes Which>
inline constexpr float plane_step = Which == planes::upper ? Q::coarse_step : 1.0f;
template <plane_format Q, planes Which>
inline constexpr float plane_offset = Which == planes::both    ? static_cast<float>(Q::quant_offset)
                                      : Which == planes::upper ? Q::coarse_offset
                                                               : Q::fine_offset;

}  // namespace detail

/// result[r] = the dot product of row r, in these planes, with `x`.
template <plane_format Q, planes Which, std::size_t Rows>
std::array<float, Rows> dot_planes(const plane_streams<Rows>& rows,
                                   const rounded_token<detail::token_quant<Q>>& x, index cols) {
  using namespace detail;
  using token_block = typename format_kernels<Q>::token_block;
  constexpr float step = plane_step<Q, Which>, offset = plane_offset<Q, Which>;
  const plane_layout<Q> layout{1, cols / block_size};
  const index blocks = layout.blocks, scales_bytes = blocks * layout.scale_bytes;
  std::array<f32x8, Rows> sums;
  sums.fill(f32x8::zero());
  std::array<float, Rows> offsets{};
  if constexpr (Which == planes::lower)  // scales stand in the other plane, where no stream goes past
    for (const row_stream& stream : rows.upper)
      for (index line = 0; line < scales_bytes; line += 64) prefetch(stream.next + line);
  for (index b = 0; b < blocks; b += group_blocks) {
    const index here = std::min(group_blocks, blocks - b);
    if constexpr (Which != planes::lower)
      prefetch_step<2>(rows.upper,
                       scales_bytes + b * Q::half_bytes + std::min(dot_lead, layout.upper_bytes()),
                       layout.upper_bytes());
    if constexpr (Which != planes::upper)
      prefetch_step<2>(rows.lower, b * Q::half_bytes + std::min(dot_lead, layout.lower_bytes()),
                       layout.lower_bytes());
    alignas(32) float scales[Rows][group_blocks];
    for (std::size_t r = 0; r < Rows; ++r) {
      const auto* stored = reinterpret_cast<const f16*>(rows.upper[r].row) + b;
      if (here == group_blocks) {
        const f32x8 row_scales = f32x8::load(stored);
        (row_scales * f32x8::load(x.scales + b)).store(scales[r]);
        if constexpr (offset != 0) offsets[r] += (row_scales * f32x8::load(x.sums + b)).sum();
      } else {
        for (index j = 0; j < here; ++j) {
          scales[r][j] = to_float(stored[j]) * x.scales[b + j];
          if constexpr (offset != 0) offsets[r] += to_float(stored[j]) * x.sums[b + j];
        }
      }
    }
    for (index j = 0; j < here; ++j) {
      const token_block token(x.quants + (b + j) * block_size);
      const index at = (b + j) * Q::half_bytes;
      for (std::size_t r = 0; r < Rows; ++r) {
        const auto* upper = reinterpret_cast<const std::uint8_t*>(rows.upper[r].row) + scales_bytes + at;
        const auto* lower = reinterpret_cast<const std::uint8_t*>(rows.lower[r].row) + at;
        i32x8 sum = i32x8::zero();
        if constexpr (Which == planes::both)
          sum = format_kernels<Q>::times(token, plane_block{upper, lower});
        else
          sum = format_kernels<Q>::times_half(token, Which == planes::upper ? upper : lower);
        sums[r] = fma(sum.to_float(), f32x8::broadcast(scales[r][j]), sums[r]);
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) result[r] = step * (sums[r].sum() - offset * offsets[r]);
  return result;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

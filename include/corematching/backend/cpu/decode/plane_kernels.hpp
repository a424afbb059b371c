// SPDX-License-Identifier: Apache-2.0
// Dot products of rows in two planes with a token: of both planes, of the upper one alone, which is a coarse
// form of the row, and of the lower one, which makes that exact. Products of integers are exact and summed
// over one block, so coarse and fine sums together differ from those of both planes by the rounding of
// binary32 alone.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
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
inline constexpr float plane_offset = Which == planes::both    ? static_cast<float>(Q::merged_offset)
                                      : Which == planes::upper ? Q::coarse_offset
                                                               : Q::fine_offset;

/// Where a row has its parts.
template <plane_format Q>
struct plane_row {
  const f16* scales;
  const std::uint8_t* upper;
  const std::uint8_t* lower;

  plane_row(const row_stream& upper_row, const row_stream& lower_row, index blocks)
      : scales(reinterpret_cast<const f16*>(upper_row.row)),
        upper(reinterpret_cast<const std::uint8_t*>(scales + blocks)),
        lower(reinterpret_cast<const std::uint8_t*>(lower_row.row)) {}

  /// Partial sums of a token's halves with those of block `b`, or with those of wide_blocks blocks from
  /// there.
  template <planes Which>
  i32x8 times(const std::array<i16x16, 2>& token, index b) const {
    const index at = b * Q::half_bytes;
    if constexpr (Which == planes::both)
      return format_kernels<Q>::times(token, u8x16::load(upper + at).widen_unsigned(),
                                      u8x16::load(lower + at).widen_unsigned());
    else
      return format_kernels<Q>::times_half(
          token, u8x16::load((Which == planes::upper ? upper : lower) + at).widen_unsigned());
  }
  template <planes Which>
  wide_i32 times_wide(const std::array<wide_i16, 2>& token, index b) const {
    const index at = b * Q::half_bytes;
    if constexpr (Which == planes::both)
      return format_kernels<Q>::times(token, widened_bytes(upper + at), widened_bytes(lower + at));
    else
      return format_kernels<Q>::times_half(token,
                                           widened_bytes((Which == planes::upper ? upper : lower) + at));
  }
};

/// Asks for what a group of blocks further ahead begins with.
template <plane_format Q, planes Which, std::size_t Rows>
void prefetch_group(const plane_streams<Rows>& rows, const plane_layout<Q>& layout, index group) {
  constexpr index upper_bytes = group_blocks * (Q::half_bytes + plane_layout<Q>::scale_bytes),
                  lower_bytes = group_blocks * Q::half_bytes;
  if constexpr (Which != planes::lower)
    prefetch_step<(upper_bytes + 63) / 64>(
        rows.upper, group * upper_bytes + std::min(dot_lead, layout.upper_bytes()), layout.upper_bytes());
  if constexpr (Which != planes::upper)
    prefetch_step<lower_bytes / 64>(
        rows.lower, group * lower_bytes + std::min(dot_lead, layout.lower_bytes()), layout.lower_bytes());
}

}  // namespace detail

/// result[r] = the dot product of row r, in these planes, with `x`.
template <plane_format Q, planes Which, std::size_t Rows>
std::array<float, Rows> dot_planes(const plane_streams<Rows>& rows,
                                   const rounded_token<detail::token_quant<Q>>& x, index cols) {
  using namespace detail;
  const plane_layout<Q> layout{1, cols / block_size};
  const index blocks = layout.blocks, whole = blocks / group_blocks * group_blocks;
  if constexpr (Which == planes::lower)  // scales stand in the other plane, where no stream goes past
    for (const row_stream& stream : rows.upper)
      for (index line = 0; line < blocks * layout.scale_bytes; line += 64) prefetch(stream.next + line);
  const auto parts = [&]<std::size_t... R>(std::index_sequence<R...>) {
    return std::array{plane_row<Q>(rows.upper[R], rows.lower[R], blocks)...};
  }
  (std::make_index_sequence<Rows>());

  std::array<wide_f32, Rows> sums;
  std::array<f32x8, Rows> offsets;
  sums.fill(wide_f32::zero());
  offsets.fill(f32x8::zero());
  for (index b = 0; b < whole; b += group_blocks) {
    prefetch_group<Q, Which>(rows, layout, b / group_blocks);
    const f32x8 token_scales = f32x8::load(x.scales + b), token_sums = f32x8::load(x.sums + b);
    alignas(32) float scales[Rows][group_blocks];
    for (std::size_t r = 0; r < Rows; ++r) {
      const f32x8 row_scales = f32x8::load(parts[r].scales + b);
      (row_scales * token_scales).store(scales[r]);
      offsets[r] = fma(row_scales, token_sums, offsets[r]);
    }
    // Scales are loaded one by one below: shuffled out of registers, they would hold up what widens quants.
    std::atomic_signal_fence(std::memory_order_acq_rel);
    for (index j = 0; j < group_blocks; j += wide_blocks) {
      const auto token = halves_of_blocks(x.quants + (b + j) * block_size);
      for (std::size_t r = 0; r < Rows; ++r) {
        const wide_i32 sum = parts[r].template times_wide<Which>(token, b + j);
        sums[r] = fma(sum.to_float(), broadcast_to_blocks(scales[r] + j), sums[r]);
      }
    }
  }
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    float sum = sums[r].sum(), offset = offsets[r].sum();
    for (index b = whole; b < blocks; ++b) {
      const float scale = to_float(parts[r].scales[b]);
      const std::int16_t* const quants = x.quants + b * block_size;
      const std::array token{i16x16::load(quants), i16x16::load(quants + 16)};
      sum += scale * x.scales[b] * parts[r].template times<Which>(token, b).to_float().sum();
      offset += scale * x.sums[b];
    }
    result[r] = plane_step<Q, Which> * (sum - plane_offset<Q, Which> * offset);
  }
  return result;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// Dot products of rows of quants in two planes with tokens: of both planes, of the upper one alone, which is
// a coarse form of the row, and of the lower one, which makes that exact. Products of integers are exact and
// summed over one block, so coarse and fine sums together differ from those of both planes by the rounding of
// binary32 alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "corematching/backend/cpu/decode/plane_tokens.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/decode/token_groups.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/unpacked_factors.hpp"
#include "corematching/backend/cpu/simd/i16x16.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

namespace detail {

/// What quants of these planes are multiplied by, and stored larger by.
template <quant_plane_format Q, planes Which>
inline constexpr float plane_step = Which == planes::upper ? Q::coarse_step : 1.0f;
template <quant_plane_format Q, planes Which>
inline constexpr float plane_offset = Which == planes::both    ? static_cast<float>(Q::merged_offset)
                                      : Which == planes::upper ? Q::coarse_offset
                                                               : Q::fine_offset;

/// Bytes of the bits of 32 weights in either plane.
template <quant_plane_format Q>
inline constexpr index block_bytes = block_size* Q::plane_bits / 8;

/// What a group of blocks has in front of its bits: a scale for each, or the factors of a super-block.
template <quant_plane_format Q>
using group_factors = std::conditional_t<super_plane_format<Q>, packed_factors, f16>;

/// Where a row has the parts of a group of blocks.
template <quant_plane_format Q>
struct plane_group {
  const group_factors<Q>* factors;
  const std::uint8_t* upper;
  const std::uint8_t* lower;
};

/// Those of the group of block `b`; of super-blocks each is one.
template <quant_plane_format Q>
plane_group<Q> group_at(const row_stream& upper, const row_stream& lower, index b,
                        const plane_layout<Q>& layout) {
  const index of_row = b * block_size / format_traits<Q>::block;
  return {
      reinterpret_cast<const group_factors<Q>*>(upper.row) + of_row,
      reinterpret_cast<const std::uint8_t*>(upper.row) + layout.blocks * Q::scale_bytes + b * block_bytes<Q>,
      reinterpret_cast<const std::uint8_t*>(lower.row) + b * block_bytes<Q>};
}

/// A group that has `blocks` blocks, filled up with blocks that are zero.
template <grouped_plane_format Q, planes Which>
struct padded_group {
  padded_group(const plane_group<Q>& from, index blocks) {
    const auto scale_bytes = static_cast<std::size_t>(blocks) * sizeof(f16),
               bytes = static_cast<std::size_t>(blocks * Q::half_bytes);
    std::memcpy(scales, from.factors, scale_bytes);
    if constexpr (Which != planes::lower) std::memcpy(upper, from.upper, bytes);
    if constexpr (Which != planes::upper) std::memcpy(lower, from.lower, bytes);
  }
  plane_group<Q> view() const { return {scales, upper, lower}; }

 private:
  f16 scales[group_blocks] = {};
  std::uint8_t upper[group_blocks * Q::half_bytes] = {}, lower[group_blocks * Q::half_bytes] = {};
};

/// The scales of a group of blocks in each of some rows, and what is taken from the sums for each unit of a
/// token's sums: what quants are stored larger by times the scale, and the minimum, which is no part of what
/// the lower plane adds.
template <quant_plane_format Q, planes Which, std::size_t Rows>
class factors_of_rows {
 public:
  explicit factors_of_rows(const std::array<plane_group<Q>, Rows>& rows) {
    for (std::size_t r = 0; r < Rows; ++r) {
      scales_[r] = f32x8::load(rows[r].factors);
      offsets_[r] = scales_[r] * f32x8::broadcast(plane_step<Q, Which> * plane_offset<Q, Which>);
    }
  }
  explicit factors_of_rows(const std::array<plane_group<Q>, Rows>& rows) requires super_plane_format<Q> {
    std::array<const packed_factors*, Rows> packed;
    for (std::size_t r = 0; r < Rows; ++r) packed[r] = rows[r].factors;
    const unpacked_factors<Rows> integers(packed);
    for (std::size_t r = 0; r < Rows; ++r) {
      scales_[r] = f32x8::broadcast(packed[r]->scale) * f32x8::load(integers.scales(r));
      offsets_[r] = scales_[r] * f32x8::broadcast(plane_step<Q, Which> * plane_offset<Q, Which>);
      if constexpr (Which != planes::lower)
        offsets_[r] = fma(f32x8::broadcast(packed[r]->minimum), f32x8::load(integers.minima(r)), offsets_[r]);
    }
  }

  f32x8 scales(std::size_t r) const { return scales_[r]; }
  f32x8 offsets(std::size_t r) const { return offsets_[r]; }

 private:
  std::array<f32x8, Rows> scales_, offsets_;
};

/// Sums of products of rows in these planes with tokens.
template <quant_plane_format Q, planes Which, std::size_t Rows, std::size_t Tokens>
class plane_sums {
  using token_type = arranged_token<token_quant<Q>, Q::plane_bits>;
  using token_part = typename token_type::part;
  using tokens = std::array<token_type, Tokens>;
  static constexpr int block_lanes = block_bytes<Q> / 4, vector_blocks = token_part::bytes / block_bytes<Q>;

 public:
  /// Adds those of the group of block `b`.
  void add(const std::array<plane_group<Q>, Rows>& rows, const tokens& x, index b) {
    alignas(32) float scales[Tokens][Rows][group_blocks];
    const factors_of_rows<Q, Which, Rows> factors(rows);
    for (std::size_t r = 0; r < Rows; ++r)
      for (std::size_t t = 0; t < Tokens; ++t) {
        (factors.scales(r) * f32x8::load(x[t].scales + b)).store(scales[t][r]);
        offsets_.of[t][r] = fma(factors.offsets(r), f32x8::load(x[t].sums + b), offsets_.of[t][r]);
      }
    for (int j = 0; j < int{group_blocks}; j += vector_blocks) {
      const auto token = for_each_token<Tokens>([&](std::size_t t) {
        return token_part(x[t].quants + (b + j) / vector_blocks * token_part::size);
      });
      for (std::size_t r = 0; r < Rows; ++r) {
        const auto weights = quants_of(rows[r], j * block_bytes<Q>);
        for (std::size_t t = 0; t < Tokens; ++t)
          sums_.of[t][r] = fma(token[t].times(weights).to_float(),
                               spread_to_blocks<block_lanes>(scales[t][r], j), sums_.of[t][r]);
      }
    }
  }

  float of(std::size_t t, std::size_t r) const {
    return plane_step<Q, Which> * sums_.of[t][r].sum() - offsets_.of[t][r].sum();
  }

 private:
  static auto quants_of(const plane_group<Q>& row, index at) {
    if constexpr (Which == planes::both) return token_part::taken_apart(row.upper + at, row.lower + at);
    return token_part::taken_apart((Which == planes::upper ? row.upper : row.lower) + at);
  }

  vector_sums<wide_f32, Rows, Tokens> sums_;
  vector_sums<f32x8, Rows, Tokens> offsets_;
};

/// Asks for what a group of blocks further ahead begins with. Lower planes are
/// read of chosen rows, whose parts are too short for the processor's
/// prefetcher to be of use: those of the next row are asked for, as far as the
/// second level of caches, while this one is read.
template <quant_plane_format Q, planes Which, std::size_t Rows>
void prefetch_group(const plane_streams<Rows>& rows, const plane_layout<Q>& layout, index group) {
  constexpr index blocks = group_blocks * block_size / format_traits<Q>::block,
                  upper_bytes = blocks * (Q::half_bytes + Q::scale_bytes),
                  lower_bytes = blocks * Q::half_bytes;
  if constexpr (Which != planes::lower)
    prefetch_step<(upper_bytes + 63) / 64>(
        rows.upper, group * upper_bytes + std::min(dot_lead, layout.upper_bytes()), layout.upper_bytes());
  if constexpr (Which != planes::upper)
    prefetch_step<lower_bytes / 64>(
        rows.lower, group * lower_bytes + std::min(dot_lead, layout.lower_bytes()), layout.lower_bytes());
  if constexpr (Which == planes::lower)
    for (const row_stream& stream : rows.lower)
      for (index line = 0; line < lower_bytes; line += 64)
        prefetch_far(stream.next + group * lower_bytes + line);
}

/// Asks for the scales of the next rows, which stand in the upper plane: all at
/// once, for they are few.
template <quant_plane_format Q, std::size_t Rows>
void prefetch_scales(const plane_streams<Rows>& rows, const plane_layout<Q>& layout) {
  for (const row_stream& stream : rows.upper)
    for (index at = 0; at < layout.blocks * Q::scale_bytes; at += 64) prefetch(stream.next + at);
}

}  // namespace detail

/// result[t][r] = the dot product of row r, in these planes, with x[t].
template <quant_plane_format Q, planes Which, std::size_t Rows, std::size_t Tokens>
dot_products<Rows, Tokens> dot_planes(
    const plane_streams<Rows>& rows,
    const std::array<arranged_token<detail::token_quant<Q>, Q::plane_bits>, Tokens>& x, index cols) {
  using namespace detail;
  const auto layout = plane_layout<Q>::of(1, cols);
  const index blocks = cols / block_size;
  if constexpr (Which == planes::lower) prefetch_scales<Q>(rows, layout);
  const auto of_rows = [](auto&& make) {
    return [&]<std::size_t... R>(std::index_sequence<R...>) {
      return std::array{make(R)...};
    }
    (std::make_index_sequence<Rows>());
  };
  const auto groups_at = [&](index b) {
    return of_rows([&](std::size_t r) { return group_at<Q>(rows.upper[r], rows.lower[r], b, layout); });
  };
  plane_sums<Q, Which, Rows, Tokens> sums;
  index b = 0;
  for (; b + group_blocks <= blocks; b += group_blocks) {
    prefetch_group<Q, Which>(rows, layout, b / group_blocks);
    sums.add(groups_at(b), x, b);
  }
  if constexpr (grouped_plane_format<Q>)
    if (b < blocks) {
      const auto groups = groups_at(b);
      const auto padded =
          of_rows([&](std::size_t r) { return padded_group<Q, Which>(groups[r], blocks - b); });
      sums.add(of_rows([&](std::size_t r) { return padded[r].view(); }), x, b);
    }
  return for_each_token<Tokens>(
      [&](std::size_t t) { return of_rows([&](std::size_t r) { return sums.of(t, r); }); });
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

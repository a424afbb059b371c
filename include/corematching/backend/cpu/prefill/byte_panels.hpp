// SPDX-License-Identifier: Apache-2.0
// The panels and the kernels of panel_kernels.hpp for tokens that are rounded to 8 bits. Where there is a dot
// product of bytes (VNNI), an instruction forms four products for each sum instead of two. With AVX2 alone
// products of bytes come in pairs of 16 bits; those of narrow quants stay so small that a block, or half of
// one, is summed before it is widened: nine multiplications for 256 weights and a token instead of sixteen.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/unpacked_factors.hpp"
#include "corematching/backend/cpu/prefill/integer_panels.hpp"
#include "corematching/backend/cpu/prefill/packed_panels.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/quantised.hpp"

#if COREMATCHING_HAS_AVX2

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Weight rows as bytes without sign, four elements of a row together, and the scales and minima of their
/// blocks.
template <>
struct weight_panel<std::int8_t> {
  alignas(64) std::uint8_t quants[panel_depth<std::int8_t> / 4][panel_rows][4];
  alignas(64) float scales[blocks_in_panel<std::int8_t>][panel_rows];
  alignas(64) float minima[blocks_in_panel<std::int8_t>][panel_rows];

  /// Block `b` of rows part..part + 8.
  void set_quants(index b, std::size_t part, std::array<u8x32, 8>& of_rows) {
    transpose(of_rows);
    index quad = b * (block_size / 4);
    for (const u8x32& four : of_rows) four.store(quants[quad++][part]);
  }
};

/// Elements first..first + count of rows in blocks; `first` and `count` in whole blocks.
template <rounded_format Q>
void pack_rows(weight_panel<std::int8_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  for (index b = 0; b < count / block_size; ++b)
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      std::array<u8x32, 8> quants;
      for (std::size_t r = 0; r < 8; ++r) {
        const auto row = blocks_of_row<Q>(rows.w, rows.row(part + r));
        quants[r] = format_kernels<Q>::bytes(row.block(first / block_size + b), panel_byte_offset);
        w.scales[b][part + r] = to_float(*row.scale(first / block_size + b));
      }
      w.set_quants(b, part, quants);
    }
}

/// Groups of a super-block, each with a scale and a minimum.
template <in_super_blocks Q>
inline constexpr index groups_of = format_traits<Q>::block / Q::group;

/// The scales and minima that rows part..part + 8 have in groups first..last of one super-block, from block
/// `to` of the panel on.
template <in_super_blocks Q>
void pack_factors(weight_panel<std::int8_t>& w, const panel_rows_of& rows, std::size_t part, index to,
                  index first, index last) {
  std::array<const packed_factors*, 8> packed;
  for (std::size_t r = 0; r < 8; ++r)
    packed[r] = &super_block<Q>(rows.w, rows.row(part + r), first * Q::group).factors;
  const unpacked_factors<8> integers(packed);
  std::array<f32x8, 8> scales, minima;  // of all groups, row by row and then group by group
  for (std::size_t r = 0; r < 8; ++r) {
    scales[r] = f32x8::broadcast(packed[r]->scale) * f32x8::load(integers.scales(r));
    minima[r] = f32x8::broadcast(-to_float(packed[r]->minimum)) * f32x8::load(integers.minima(r));
  }
  transpose(scales);
  transpose(minima);
  for (index group = first; group < last; ++group, ++to) {
    scales[static_cast<std::size_t>(group % groups_of<Q>)].store(w.scales[to] + part);
    minima[static_cast<std::size_t>(group % groups_of<Q>)].store(w.minima[to] + part);
  }
}

/// The same of rows in super-blocks.
template <in_super_blocks Q>
void pack_rows(weight_panel<std::int8_t>& w, const panel_rows_of& rows, index first, index count) {
  static_assert(Q::group == block_size);
  assert(first % block_size == 0 && count % block_size == 0);
  for_each_piece(first, count, [&]<int Piece>(index b) {
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      std::array<u8x32, 8> quants;
      for (std::size_t r = 0; r < 8; ++r)
        quants[r] = format_kernels<Q>::template bytes<Piece>(
            super_block<Q>(rows.w, rows.row(part + r), first + b * block_size));
      w.set_quants(b, part, quants);
    }
  });
  const index begin = first / block_size, end = begin + count / block_size;
  for (index group = begin, next; group < end; group = next) {
    next = std::min(end, (group / groups_of<Q> + 1) * groups_of<Q>);
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8)
      pack_factors<Q>(w, rows, part, group - begin, group, next);
  }
}

/// One block of columns of neurons first..first + count, as pack_neurons of integer_panels.hpp packs them.
template <neuron_format Q>
void pack_neurons(weight_panel<std::int8_t>* panels, const stored_view<>& w, index column, index first,
                  index count) {
  static_assert(Q::group == block_size && Q::bits == 4);
  assert(first % Q::group == 0);
  const auto row = [&](index k) { return blocks_of_row<Q>(w, first + std::min(k, count - 1)); };
  constexpr int more = Q::has_minimum ? 0 : panel_byte_offset - Q::quant_offset;
  constexpr std::size_t rows = panel_rows;
  for (index k = 0; k < count; k += 4) {
    std::array<u8x32, 4> quads;
    for (index i = 0; i < 4; ++i)
      quads[static_cast<std::size_t>(i)] =
          u8x32::nibbles(row(k + i).quants + column / 2) + u8x32::broadcast(std::uint8_t{more});
    interleave(quads);
    for (std::size_t v = 0; v < quads.size(); ++v)
      quads[v].store(panels[8 * v / rows].quants[k / 4][8 * v % rows]);
  }
  for (index g = 0; g * Q::group < count; ++g) set_factors<Q>(panels, row(g * Q::group), column, g);
}

#if COREMATCHING_HAS_VNNI

/// Sums of products of bytes, four for each lane and step.
struct byte_sums {
  wide_i32 lanes;
  /// Steps after which they are to be widened.
  template <class T>
  static constexpr index steps = block_size / 4;

  static byte_sums broadcast(std::int32_t start) { return {wide_i32::broadcast(start)}; }
  void add(wide_u8 w, wide_i8 x) {
    lanes = multiply_add_quads(w, x, lanes);
    lanes.pin();
  }
  /// A block is one sum.
  wide_i32 widened_onto(wide_i32) const { return lanes; }
};

#else

/// The same, two for each half of a lane and step, as many as stay within int16.
struct byte_sums {
  wide_i16 lanes;
  template <class T>
  static constexpr index steps = short_products<T> >= 16 ? block_size / 4 : block_size / 8;

  static byte_sums broadcast(std::int32_t start) { return {wide_i16::broadcast_pair(start)}; }
  void add(wide_u8 w, wide_i8 x) {
    lanes = multiply_add_pairs(w, x, lanes);
    lanes.pin();
  }
  wide_i32 widened_onto(wide_i32 sums) const {
    return multiply_add_pairs(lanes, wide_i16::broadcast(1), sums);
  }
};

#endif

/// add_products of panel_kernels.hpp. Without minima the sums begin with what takes the offset of the weights
/// back. They are widened after `Steps` times four elements.
template <bool Minimum, index Steps>
[[gnu::noinline]] inline void add_products(const weight_panel<std::int8_t>& w, token_panel<std::int8_t> x,
                                           index depth, float* sums) {
  constexpr std::size_t tokens = panel_tokens;
  constexpr index blocks = blocks_in_panel<std::int8_t>;
  for (index b = 0; b * block_size < depth; ++b) {
    std::array<wide_i32, tokens> low_sums, high_sums;
    low_sums.fill(wide_i32::zero());
    high_sums.fill(wide_i32::zero());
    for (index first = 0; first < block_size; first += 4 * Steps) {
      std::array<byte_sums, tokens> low, high;
      COREMATCHING_UNROLL(12)
      for (std::size_t t = 0; t < tokens; ++t)
        low[t] = high[t] = byte_sums::broadcast(Minimum ? 0 : x.start[t * blocks + b]);
      const std::uint8_t* quants = w.quants[(b * block_size + first) / 4][0];
      const std::int8_t* values = x.values + b * block_size + first;
      COREMATCHING_UNROLL(8)
      for (index k = 0; k < 4 * Steps; k += 4) {
        x.prefetch_next(b * block_size + first + k);
        const wide_u8 w_low = wide_u8::load(quants + k * panel_rows);
        const wide_u8 w_high = wide_u8::load(quants + k * panel_rows + 4 * wide_lanes);
        COREMATCHING_UNROLL(12)
        for (std::size_t t = 0; t < tokens; ++t) {
          std::int32_t quad;
          std::memcpy(&quad, values + t * panel_depth<std::int8_t> + k, sizeof quad);
          const wide_i8 token = wide_i8::broadcast(quad);
          low[t].add(w_low, token);
          high[t].add(w_high, token);
        }
      }
      COREMATCHING_UNROLL(12)
      for (std::size_t t = 0; t < tokens; ++t) {
        low_sums[t] = low[t].widened_onto(low_sums[t]);
        high_sums[t] = high[t].widened_onto(high_sums[t]);
      }
    }
    COREMATCHING_UNROLL(12)
    for (std::size_t t = 0; t < tokens; ++t) {
      panel_outputs all(sums + t * group_rows);
      all.add(low_sums[t], high_sums[t], w.scales[b], x.scales[t * blocks + b]);
      if constexpr (Minimum) all.add(w.minima[b], sum_of_group<block_size>(x, t, b * block_size));
      all.store(sums + t * group_rows);
    }
    // The next block reads the sums from memory again; kept in registers they would be spilled.
    std::atomic_signal_fence(std::memory_order_acq_rel);
  }
}

template <class T>
void add_panel(const weight_panel<std::int8_t>& w, token_panel<std::int8_t> x, index depth, float* sums) {
  add_products<panel_factors<T>::has_minimum, byte_sums::steps<T>>(w, x, depth, sums);
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

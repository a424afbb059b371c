// SPDX-License-Identifier: Apache-2.0
// The panels and the kernel of panel_kernels.hpp for the block formats where there is a dot product of bytes
// (VNNI): tokens are rounded to 8 bits, and an instruction forms four products for each sum instead of two.
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/prefill/packed_panels.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/quantised.hpp"

#if COREMATCHING_HAS_VNNI

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Weight rows as bytes without sign, four elements of a row together, and the scales of their blocks.
template <>
struct weight_panel<std::int8_t> {
  alignas(64) std::uint8_t quants[panel_depth<std::int8_t> / 4][panel_rows][4];
  alignas(64) float scales[blocks_in_panel<std::int8_t>][panel_rows];
};

/// Elements first..first + count of rows in blocks; `first` and `count` in whole blocks.
template <block_format Q>
void pack_rows(weight_panel<std::int8_t>& w, const panel_rows_of& rows, index first, index count) {
  assert(first % block_size == 0 && count % block_size == 0);
  for (index b = 0; b < count / block_size; ++b)
    for (std::size_t part = 0; part < panel_rows_of::size; part += 8) {
      std::array<u8x32, 8> quads;
      for (std::size_t r = 0; r < 8; ++r) {
        const auto row = blocks_of_row<Q>(rows.w, rows.row(part + r));
        quads[r] = format_kernels<Q>::bytes(row.block(first / block_size + b), panel_byte_offset);
        w.scales[b][part + r] = to_float(*row.scale(first / block_size + b));
      }
      transpose(quads);
      index quad = b * (block_size / 4);
      for (const u8x32& four : quads) four.store(w.quants[quad++][part]);
    }
}

/// sums[t][r] += sum over blocks b of w.scale[b][r] x.scale[t][b] sum over k of w[r][b, k] x[t][b, k], the
/// inner sum in integers that begin with what takes the offset of the weights back.
[[gnu::noinline]] inline void add_products(const weight_panel<std::int8_t>& w, token_panel<std::int8_t> x,
                                           index depth, float* sums) {
  constexpr std::size_t tokens = panel_tokens;
  constexpr index blocks = blocks_in_panel<std::int8_t>;
  for (index b = 0; b * block_size < depth; ++b) {
    std::array<wide_i32, tokens> low, high;
    COREMATCHING_UNROLL(12)
    for (std::size_t t = 0; t < tokens; ++t) low[t] = high[t] = wide_i32::broadcast(x.start[t * blocks + b]);
    const std::uint8_t* quants = w.quants[b * (block_size / 4)][0];
    const std::int8_t* values = x.values + b * block_size;
    COREMATCHING_UNROLL(8)
    for (index k = 0; k < block_size; k += 4) {
      x.prefetch_next(b * block_size + k);
      const wide_u8 w_low = wide_u8::load(quants + k * panel_rows);
      const wide_u8 w_high = wide_u8::load(quants + k * panel_rows + 4 * wide_lanes);
      COREMATCHING_UNROLL(12)
      for (std::size_t t = 0; t < tokens; ++t) {
        std::int32_t quad;
        std::memcpy(&quad, values + t * panel_depth<std::int8_t> + k, sizeof quad);
        const wide_i8 token = wide_i8::broadcast(quad);
        low[t] = multiply_add_quads(w_low, token, low[t]);
        high[t] = multiply_add_quads(w_high, token, high[t]);
        low[t].pin();
        high[t].pin();
      }
    }
    COREMATCHING_UNROLL(12)
    for (std::size_t t = 0; t < tokens; ++t)
      add_block_sums(low[t], high[t], w.scales[b], wide_f32::broadcast(x.scales[t * blocks + b]),
                     sums + t * group_rows);
    // The next block reads the sums from memory again; kept in registers they would be spilled.
    std::atomic_signal_fence(std::memory_order_acq_rel);
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

// SPDX-License-Identifier: Apache-2.0
// Weights and tokens into the strips of tile_kernel.hpp: 32 rows, or 32 columns, as bfloat16 numbers or sums
// of two.
#pragma once

#include "corematching/backend/cpu/amx/tile_kernel.hpp"

#if COREMATCHING_HAS_AMX

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/moved.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// How many bfloat16 numbers stand for a weight stored as `T`. Weights of the block formats are rounded to
/// one, which is a third of the rounding to blocks that they have behind them; f16 is exact as two.
template <class T>
inline constexpr int weight_parts = std::is_same_v<T, f16> || number_plane_format<T> ? 2 : 1;
/// And for a token that meets such weights: as exact as the weights are.
template <class T>
inline constexpr int token_parts = block_format<T> && !number_plane_format<T> ? 1 : 2;

/// A register of 32 bfloat16 numbers, 16 pairs of them or 16 binary32 numbers.
struct lanes512 {
  __m512i bits;

  static lanes512 load(const void* from) { return {_mm512_loadu_si512(from)}; }
  void store(void* to) const { _mm512_storeu_si512(to, bits); }
};

/// 32 numbers as sums of `Parts` bfloat16 numbers each.
template <int Parts>
using split_numbers = std::array<lanes512, static_cast<std::size_t>(Parts)>;

inline lanes512 rounded_to_bf16(__m512 first, __m512 last) {
  return {reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(last, first))};
}

inline __m512 widened(__m256i numbers) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

template <int Parts>
split_numbers<Parts> split(__m512 first, __m512 last) {
  const lanes512 rounded = rounded_to_bf16(first, last);
  if constexpr (Parts == 1) {
    return {rounded};
  } else {
    const __m512 first_rest = _mm512_sub_ps(first, widened(_mm512_castsi512_si256(rounded.bits)));
    const __m512 last_rest = _mm512_sub_ps(last, widened(_mm512_extracti64x4_epi64(rounded.bits, 1)));
    return {rounded, rounded_to_bf16(first_rest, last_rest)};
  }
}

/// Masks of the first `count` of 32 elements, and of 16 from `first` on.
inline __mmask32 first_of_32(index count) {
  return count >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((1u << count) - 1);
}
inline __mmask16 first_of_16(index count) {
  return static_cast<__mmask16>(first_of_32(std::clamp<index>(count, 0, 16)));
}

/// The elements column..column + 32 of a row of `cols`, zeros behind its end.
template <int Parts>
split_numbers<Parts> split_row(const float* row, index column, index cols) {
  return split<Parts>(_mm512_maskz_loadu_ps(first_of_16(cols - column), row + column),
                      _mm512_maskz_loadu_ps(first_of_16(cols - column - 16), row + column + 16));
}

/// Calls sink(i, split numbers) for the elements first + 32 i.. of a weight row of `cols` stored as `T`,
/// until `count` of them are done; zeros behind the row's end.
template <class T, class Sink>
[[gnu::always_inline]] inline void split_weights(const std::byte* row, index first, index count, index cols,
                                                 Sink&& sink) {
  const auto* elements = reinterpret_cast<const std::uint16_t*>(row);
  for (index i = 0; i * tile_depth < count; ++i) {
    const index column = first + i * tile_depth;
    const __m512i stored = _mm512_maskz_loadu_epi16(first_of_32(cols - column), elements + column);
    if constexpr (std::is_same_v<T, bf16>) {
      sink(i, split_numbers<1>{lanes512{stored}});
    } else {
      static_assert(std::is_same_v<T, f16>);
      sink(i, split<2>(_mm512_cvtph_ps(_mm512_castsi512_si256(stored)),
                       _mm512_cvtph_ps(_mm512_extracti64x4_epi64(stored, 1))));
    }
  }
}

/// The same of a row in blocks: `first` and `count` are multiples of block_size.
template <block_format Q, class Sink>
[[gnu::always_inline]] inline void split_weights(const quantised_row<Q>& row, index first, index count,
                                                 Sink&& sink) {
  const index begin = first / block_size, end = begin + count / block_size;
  for (index b = begin; b < end; ++b) {
    const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(row.scale(b)->bits)));
    const auto halves = format_kernels<Q>::numbers(row.block(b), scale);
    sink(b - begin, split<1>(halves[0].lanes, halves[1].lanes));
  }
}

/// The same of formats that hold quants of files, which are widened.
template <moved_format Q, class Sink>
[[gnu::always_inline]] inline void split_weights(const quantised_row<Q>& row, index first, index count,
                                                 Sink&& sink) {
  alignas(64) float widened[block_size];
  for (index b = 0; b < count / block_size; ++b) {
    dequantise(row, first + b * block_size, block_size, widened);
    sink(b, split<1>(_mm512_load_ps(widened), _mm512_load_ps(widened + 16)));
  }
}

/// The same of numbers in two planes; zeros behind the row's end.
template <number_plane_format Q, class Sink>
[[gnu::always_inline]] inline void split_weights(const quantised_row<Q>& row, index first, index count,
                                                 Sink&& sink) {
  for (index i = 0; i * tile_depth < count; ++i) {
    const index column = first + i * tile_depth;
    const auto halves = format_kernels<Q>::numbers(row.block(column), first_of_32(row.cols() - column));
    sink(i, split<2>(halves[0].lanes, halves[1].lanes));
  }
}

/// Lane j of register i becomes lane i of register j; 32 bits each.
inline void transpose(std::array<lanes512, 16>& rows) {
  // 2 x 2 of elements, then of pairs, within 128 bits; then 4 x 4 of those.
  __m512i quads[16];
  for (std::size_t i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(rows[i].bits, rows[i + 1].bits);
    const __m512i b = _mm512_unpackhi_epi32(rows[i].bits, rows[i + 1].bits);
    const __m512i c = _mm512_unpacklo_epi32(rows[i + 2].bits, rows[i + 3].bits);
    const __m512i d = _mm512_unpackhi_epi32(rows[i + 2].bits, rows[i + 3].bits);
    quads[i] = _mm512_unpacklo_epi64(a, c);
    quads[i + 1] = _mm512_unpackhi_epi64(a, c);
    quads[i + 2] = _mm512_unpacklo_epi64(b, d);
    quads[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0xdd);
    rows[i].bits = _mm512_shuffle_i32x4(a, c, 0x88);
    rows[i + 4].bits = _mm512_shuffle_i32x4(b, d, 0x88);
    rows[i + 8].bits = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[i + 12].bits = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

/// Writes numbers as row `row` (of 32) of a step of a strip.
template <int Parts>
void store_row(bf16* step, index row, const split_numbers<Parts>& numbers) {
  for (std::size_t part = 0; part < Parts; ++part)
    numbers[part].store(step + static_cast<index>(part) * step_elements + row * tile_depth);
}

/// Writes 16 rows as columns of tile `tile` of a step: its row i has elements 2 i and 2 i + 1 of each.
template <int Parts>
void store_transposed(bf16* step, index tile, std::array<std::array<lanes512, 16>, Parts>& rows) {
  for (std::size_t part = 0; part < Parts; ++part) {
    transpose(rows[part]);
    bf16* to = step + static_cast<index>(part) * step_elements + tile * tile_elements;
    for (const lanes512& pairs : rows[part]) pairs.store(std::exchange(to, to + tile_depth));
  }
}

/// Writes rows 2 pair and 2 pair + 1 of 32 columns: both side by side in one row of each tile.
template <int Parts>
void store_pair(bf16* step, index pair, const split_numbers<Parts>& even, const split_numbers<Parts>& odd) {
  alignas(64) static constexpr auto places = [] {
    std::array<std::array<std::uint16_t, 32>, 2> of_half;
    for (std::size_t half = 0; half < 2; ++half)
      for (std::size_t i = 0; i < 32; ++i)
        of_half[half][i] = static_cast<std::uint16_t>(16 * half + i / 2 + i % 2 * 32);
    return of_half;
  }();
  for (std::size_t part = 0; part < Parts; ++part)
    for (std::size_t half = 0; half < 2; ++half) {
      bf16* tile = step + static_cast<index>(part) * step_elements + static_cast<index>(half) * tile_elements;
      const lanes512 order = lanes512::load(places[half].data());
      const lanes512 pairs{_mm512_permutex2var_epi16(even[part].bits, order.bits, odd[part].bits)};
      pairs.store(tile + pair * tile_depth);
    }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

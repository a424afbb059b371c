// SPDX-License-Identifier: Apache-2.0
// Weights and tokens into the strips of tile_kernel.hpp: 32 rows, or 32 columns, as bfloat16 numbers or sums
// of two.
#pragma once

#include "corematching/backend/cpu/tile_kernel.hpp"

#if COREMATCHING_HAS_AMX

#include <algorithm>
#include <array>
#include <cstdint>

#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// How many bfloat16 numbers stand for a weight stored as `T`. Weights of the block formats are rounded to
/// one, which is an eighth of the rounding to blocks that they have behind them; f16 is exact as two.
template <class T>
inline constexpr int weight_parts = std::is_same_v<T, f16> ? 2 : 1;
/// And for a token that meets such weights: as exact as the weights are.
template <class T>
inline constexpr int token_parts = block_format<T> ? 1 : 2;

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

/// The same of a weight row stored as `T`.
template <class T>
split_numbers<weight_parts<T>> split_weights(const std::byte* row, index column, index cols) {
  const auto* elements = reinterpret_cast<const std::uint16_t*>(row) + column;
  const __m512i stored = _mm512_maskz_loadu_epi16(first_of_32(cols - column), elements);
  if constexpr (std::is_same_v<T, bf16>) {
    return {lanes512{stored}};
  } else {
    static_assert(std::is_same_v<T, f16>);
    return split<2>(_mm512_cvtph_ps(_mm512_castsi512_si256(stored)),
                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64(stored, 1)));
  }
}

/// One block: `column` is a multiple of block_size.
template <block_format Q>
split_numbers<1> split_weights(const std::byte* row, index column, index cols) {
  const quantised_row<Q> blocks(row, cols);
  const index b = column / block_size;
  const auto* quants = reinterpret_cast<const __m128i*>(blocks.block(b));
  const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(blocks.scale(b)->bits)));
  const __m128i first = _mm_loadu_si128(quants);
  const auto scaled = [&](__m512i integers) { return _mm512_mul_ps(_mm512_cvtepi32_ps(integers), scale); };
  if constexpr (std::same_as<Q, q8_0>) {
    const __m128i last = _mm_loadu_si128(quants + 1);
    return split<1>(scaled(_mm512_cvtepi8_epi32(first)), scaled(_mm512_cvtepi8_epi32(last)));
  } else {
    const __m128i nibble = _mm_set1_epi8(15), offset = _mm_set1_epi8(q4_0_offset);
    const __m128i low = _mm_sub_epi8(_mm_and_si128(first, nibble), offset);
    const __m128i high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(first, 4), nibble), offset);
    return split<1>(scaled(_mm512_cvtepi8_epi32(low)), scaled(_mm512_cvtepi8_epi32(high)));
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

inline bf16* tile_row(bf16* tile, index row) {
  return tile + row * tile_depth;
}

/// The step at `column` of a strip of rows: read(row) gives the split numbers of each of the 32.
template <int Parts, class Read>
void pack_row_step(bf16* step, Read&& read) {
  for (index row = 0; row < strip_rows; ++row) {
    const split_numbers<Parts> numbers = read(row);
    for (std::size_t part = 0; part < Parts; ++part)
      numbers[part].store(tile_row(step + static_cast<index>(part) * step_elements, row));
  }
}

/// The same with rows as columns of the strip: row i of a tile has pairs 2 i, 2 i + 1 of 16 rows.
template <int Parts, class Read>
void pack_transposed_step(bf16* step, Read&& read) {
  for (index tile = 0; tile < 2; ++tile) {
    std::array<std::array<lanes512, 16>, Parts> pairs;
    for (std::size_t row = 0; row < 16; ++row) {
      const split_numbers<Parts> numbers = read(tile * tile_rows + static_cast<index>(row));
      for (std::size_t part = 0; part < Parts; ++part) pairs[part][row] = numbers[part];
    }
    for (std::size_t part = 0; part < Parts; ++part) {
      transpose(pairs[part]);
      bf16* to = step + static_cast<index>(part) * step_elements + tile * tile_elements;
      for (std::size_t row = 0; row < 16; ++row)
        pairs[part][row].store(tile_row(to, static_cast<index>(row)));
    }
  }
}

/// A step of a strip of 32 columns, of which read(k) gives the split numbers of row k < 32: pairs of rows side
/// by side.
template <int Parts, class Read>
void pack_column_step(bf16* step, Read&& read) {
  alignas(64) static constexpr auto places = [] {
    std::array<std::array<std::uint16_t, 32>, 2> of_half;
    for (std::size_t half = 0; half < 2; ++half)
      for (std::size_t i = 0; i < 32; ++i)
        of_half[half][i] = static_cast<std::uint16_t>(16 * half + i / 2 + i % 2 * 32);
    return of_half;
  }();
  for (index pair = 0; pair < tile_rows; ++pair) {
    const split_numbers<Parts> even = read(2 * pair), odd = read(2 * pair + 1);
    for (std::size_t part = 0; part < Parts; ++part)
      for (std::size_t half = 0; half < 2; ++half) {
        bf16* tile = step + static_cast<index>(part) * step_elements + static_cast<index>(half) * tile_elements;
        const lanes512 order = lanes512::load(places[half].data());
        const lanes512 pairs{_mm512_permutex2var_epi16(even[part].bits, order.bits, odd[part].bits)};
        pairs.store(tile_row(tile, pair));
      }
  }
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

#endif

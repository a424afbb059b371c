// SPDX-License-Identifier: Apache-2.0
// Random weight matrices, written in their storage type at memory speed: speed depends on shapes and types,
// not on values, as long as activations stay finite. A weight's value depends on the seed and its place
// alone.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/core/quantised.hpp"

#include "random_words.hpp"

namespace corematching::bench {

namespace detail {

/// Writes `bytes` bytes, a multiple of 8: word i is edit(random word i).
template <class Edit>
void fill_words(std::byte* to, index bytes, std::uint64_t seed, Edit edit) {
  for (index i = 0; i < bytes / 8; ++i) {
    const std::uint64_t word = edit(random_word(seed, static_cast<std::uint64_t>(i)));
    std::memcpy(to + 8 * i, &word, sizeof word);
  }
}

template <class T>
struct float_format;
template <>
struct float_format<float> {
  static constexpr int width = 32, mantissa = 23, bias = 127;
};
template <>
struct float_format<f16> {
  static constexpr int width = 16, mantissa = 10, bias = 15;
};
template <>
struct float_format<bf16> {
  static constexpr int width = 16, mantissa = 7, bias = 127;
};

constexpr std::uint64_t repeated(std::uint64_t bits, int width) {
  std::uint64_t word = 0;
  for (int at = 0; at < 64; at += width) word |= bits << at;
  return word;
}

// Sign and mantissa are random, the exponent e is not: magnitudes are even in [2^e, 2^(e+1)), with a root
// mean square of sqrt(7/3) 2^e, which is made to lie near `rms`.
template <class T>
void fill_row(std::byte* row, index cols, double rms, std::uint64_t seed) {
  using format = float_format<T>;
  const auto exponent =
      static_cast<std::uint64_t>(std::lround(std::log2(rms / std::sqrt(7.0 / 3.0))) + format::bias);
  const std::uint64_t random_bits = repeated(
      std::uint64_t{1} << (format::width - 1) | ((std::uint64_t{1} << format::mantissa) - 1), format::width);
  const std::uint64_t fixed_bits = repeated(exponent << format::mantissa, format::width);
  fill_words(row, cols * format::width / 8, seed,
             [&](std::uint64_t word) { return (word & random_bits) | fixed_bits; });
}

// Of the odd numbers in -127..127, and of -8..7.
constexpr double odd_byte_rms = 73.9, nibble_rms = 4.64;

// Quants are random, all scales are the same. A q8_0 quant is made odd: ggml's rounding never gives -128, and
// kernels need not expect it.
template <grouped_format Q>
void fill_row(std::byte* row, index cols, double rms, std::uint64_t seed) {
  constexpr bool wide = quant_bytes<Q> == block_size;
  const auto bytes = static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols)));
  fill_words(row, bytes, seed, [](std::uint64_t word) { return wide ? word | repeated(1, 8) : word; });
  const f16 scale = to_f16(static_cast<float>(rms / (wide ? odd_byte_rms : nibble_rms)));
  const row_layout<Q> layout{cols / block_size};
  for (index b = 0; b < layout.blocks; ++b) std::memcpy(row + layout.scale_at(b), &scale, sizeof scale);
}

// Both planes of a row; quants of eight bits are made odd, as above.
template <quant_plane_format Q>
void fill_planes(std::byte* matrix, plane_layout<Q> layout, index i, double rms, std::uint64_t seed) {
  constexpr bool wide = Q::plane_bits == 4;
  const f16 scale = to_f16(static_cast<float>(rms / (wide ? odd_byte_rms : nibble_rms)));
  std::byte* const upper = matrix + layout.upper_at(i);
  for (index b = 0; b < layout.blocks; ++b) std::memcpy(upper + b * Q::scale_bytes, &scale, sizeof scale);
  fill_words(upper + layout.blocks * Q::scale_bytes, layout.lower_bytes(), seed,
             [](std::uint64_t word) { return word; });
  fill_words(matrix + layout.lower_at(i), layout.lower_bytes(), ~seed,
             [](std::uint64_t word) { return wide ? word | repeated(1, 4) : word; });
}

template <number_plane_format Q>
void fill_planes(std::byte* matrix, plane_layout<Q> layout, index i, double rms, std::uint64_t seed) {
  std::vector<typename Q::whole> row(static_cast<std::size_t>(layout.blocks));
  fill_row<typename Q::whole>(reinterpret_cast<std::byte*>(row.data()), layout.blocks, rms, seed);
  std::byte *upper = matrix + layout.upper_at(i), *lower = matrix + layout.lower_at(i);
  for (const auto number : row) {
    const auto bytes = Q::split(number);
    *upper++ = std::byte{bytes[0]};
    *lower++ = std::byte{bytes[1]};
  }
}

}  // namespace detail

/// A matrix of random weights with a root mean square of about `rms`; cols must be a multiple of block_size.
inline weight<host_space> random_weight(cpu::thread_pool& pool, dtype type, index rows, index cols,
                                        double rms, std::uint64_t seed) {
  require(cols % block_size == 0, "random weights: rows of ", cols, " are no multiple of ", block_size);
  const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)));
  const auto block = cpu::weight_memory(stored_bytes(type, rows, cols));
  visit_rounded(type, [&]<class T>() {
    pool.for_ranges(rows, 1, [&](int, index first, index last) {
      for (index i = first; i < last; ++i) {
        const std::uint64_t of_row = random_word(seed, static_cast<std::uint64_t>(i));
        if constexpr (plane_format<T>)
          detail::fill_planes<T>(block.get(), plane_layout<T>::of(rows, cols), i, rms, of_row);
        else
          detail::fill_row<T>(block.get() + i * row_bytes, cols, rms, of_row);
      }
    });
  });
  return {{block.get(), type, rows, cols, row_bytes}, block};
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
// Quantised tensors of a GGUF file in our layouts. Quants and scales are moved, never changed: what a weight
// stands for is the same number before and after, bit for bit.
//
//   along the rows            Q8_0, Q5_0 and IQ4_NL to q8_0, Q4_0 to q4_0, others to wide_16, wide_16m and
//                             wide_32m, but for those that are kept as they are (kept_type_of)
//   transposed, by neuron     Q4_0 to down_4bit_32, Q4_1 and Q4_K to down_4bit_32m, others to down_16,
//                             down_16m, down_32 and down_32m
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/view.hpp"
#include "corematching/io/ggml_blocks.hpp"
#include "corematching/io/ggml_super_blocks.hpp"
#include "corematching/io/ggml_type.hpp"
#include "corematching/model/gguf/in_parallel.hpp"

namespace corematching {

/// Calls body.operator()<Block>() with the layout of a type whose blocks are known; others are an error.
template <class Body>
decltype(auto) visit_ggml_blocks(io::ggml_type type, Body&& body) {
  using io::ggml_type;
  switch (type) {
    case ggml_type::q4_0: return body.template operator()<io::ggml_q4_0>();
    case ggml_type::q4_1: return body.template operator()<io::ggml_q4_1>();
    case ggml_type::q5_0: return body.template operator()<io::ggml_q5_0>();
    case ggml_type::q5_1: return body.template operator()<io::ggml_q5_1>();
    case ggml_type::q8_0: return body.template operator()<io::ggml_q8_0>();
    case ggml_type::q2_k: return body.template operator()<io::ggml_q2_k>();
    case ggml_type::q3_k: return body.template operator()<io::ggml_q3_k>();
    case ggml_type::q4_k: return body.template operator()<io::ggml_q4_k>();
    case ggml_type::q5_k: return body.template operator()<io::ggml_q5_k>();
    case ggml_type::q6_k: return body.template operator()<io::ggml_q6_k>();
    case ggml_type::iq4_nl: return body.template operator()<io::ggml_iq4_nl>();
    case ggml_type::iq4_xs: return body.template operator()<io::ggml_iq4_xs>();
    default: break;
  }
  fail(io::name_of(type), " is not read; F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, ",
       "Q3_K, Q2_K, IQ4_NL and IQ4_XS are");
}

namespace detail {

/// Which of our formats holds a type's blocks along the rows, and which by neurons.
template <class Block, class Scaled>
using row_format_of = std::conditional_t<Block::has_minimum,
                                         std::conditional_t<Block::group == 16, wide_16m, wide_32m>, Scaled>;
template <class Block>
struct moved_to {
  // A scale that is a product does not fit binary16.
  using rows = row_format_of<Block, std::conditional_t<Block::group == 16, wide_16, wide_32m>>;
};
template <class Block>
requires(Block::block == block_size && !Block::has_minimum) struct moved_to<Block> {
  using rows = q8_0;
};
template <>
struct moved_to<io::ggml_q4_0> {
  using rows = q4_0;
};

/// Of the types whose quants have four bits in steps of one scale.
template <class Block>
inline constexpr bool has_four_bits =
    std::is_same_v<Block, io::ggml_q4_0> || std::is_same_v<Block, io::ggml_q4_1> ||
    std::is_same_v<Block, io::ggml_q4_k>;
template <class Block>
using by_neurons = std::conditional_t<
    has_four_bits<Block>, std::conditional_t<Block::has_minimum, down_4bit_32m, down_4bit_32>,
    std::conditional_t<Block::group == 16, std::conditional_t<Block::has_minimum, down_16m, down_16>,
                       std::conditional_t<Block::has_minimum, down_32m, down_32>>>;

/// Stores block `b` of a row of `blocks`.
template <wide_format Q>
void store_quants(const widened_block& from, index b, index, std::byte* row) {
  Q::move(from, row + b * Q::bytes);
}
template <grouped_format Q>
void store_quants(const widened_block& from, index b, index blocks, std::byte* row) {
  const row_layout<Q> layout{blocks};
  const f16 scale = to_f16(from.scales[0]);  // which came from a binary16
  std::memcpy(row + layout.scale_at(b), &scale, sizeof scale);
  std::byte* const quants = row + layout.quants_at(b);
  if constexpr (std::is_same_v<Q, q8_0>) {
    std::memcpy(quants, from.quants, sizeof from.quants);
  } else {
    for (index i = 0; i < Q::quant_bytes; ++i)
      quants[i] = static_cast<std::byte>((from.quants[i] + Q::quant_offset) |
                                         (from.quants[i + Q::quant_bytes] + Q::quant_offset) << 4);
  }
}

/// Stores 32 neurons' scales and minima of column `j`, from neuron `n` on.
template <neuron_format Q>
void store_factors(const widened_block& from, index n, index j, index cols, std::byte* matrix) {
  const neuron_layout<Q> layout{cols};
  for (index part = 0; part < Q::scales; ++part) {
    const index first = n + part * Q::group, place = part * Q::group / widened_block::group;
    const index at = j * index{sizeof(float)};
    std::memcpy(matrix + layout.scales_at(first) + at, from.scales + place, sizeof(float));
    if constexpr (Q::has_minimum)
      std::memcpy(matrix + layout.minima_at(first) + at, from.minima + place, sizeof(float));
  }
}

/// Stores columns j..j + count, whole blocks, of a neuron's quants, which stand `Apart` from each other; of
/// halves of bytes the low ones come first.
template <neuron_format Q, index Apart>
void store_columns(const std::int8_t* quants, index j, index count, std::byte* neuron) {
  std::byte* to = neuron + j * Q::bits / 8;
  if constexpr (Q::bits == 8) {
    for (index i = 0; i < count; ++i) *to++ = static_cast<std::byte>(quants[i * Apart]);
  } else {
    constexpr index half = block_size / 2;
    for (index block = 0; block < count; block += block_size)
      for (index i = block; i < block + half; ++i)
        *to++ = static_cast<std::byte>((quants[i * Apart] + Q::quant_offset) |
                                       (quants[(i + half) * Apart] + Q::quant_offset) << 4);
  }
}

inline bool is_finite(const widened_block& block) {
  bool finite = true;
  for (const float scale : block.scales) finite = finite && std::isfinite(scale);
  for (const float minimum : block.minima) finite = finite && std::isfinite(minimum);
  return finite;
}

}  // namespace detail

/// A tensor [rows, cols] of a file, its rows whole blocks.
struct ggml_matrix {
  const std::byte* data;
  io::ggml_type type;
  index rows;
  index cols;
};

/// What rows of a type are moved to, and what its neurons are where it is transposed.
inline dtype row_type_of(io::ggml_type type) {
  return visit_ggml_blocks(type,
                           [&]<class Block>() { return dtype_of<typename detail::moved_to<Block>::rows>; });
}
inline dtype neuron_type_of(io::ggml_type type) {
  return visit_ggml_blocks(type, [&]<class Block>() { return dtype_of<detail::by_neurons<Block>>; });
}

namespace detail {

inline void require_finite(bool finite) {
  require(finite, "it holds a scale that is no finite number");
}

template <class Block>
const std::uint8_t* block_at(const ggml_matrix& from, index row, index column) {
  const index blocks = from.cols / Block::block;
  return reinterpret_cast<const std::uint8_t*>(from.data) +
         (row * blocks + column / Block::block) * Block::bytes;
}

}  // namespace detail

/// Row i of `to`, which has room for all, is row source_row(i) of `from` as `type`: row_type_of(from.type),
/// or wide_16m, which holds them all. Throws `error` for a scale that is no finite number.
template <class SourceRow>
void move_rows(const ggml_matrix& from, dtype type, std::byte* to, int threads, SourceRow&& source_row) {
  const index blocks = from.cols / block_size;
  const auto row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(from.cols)));
  std::atomic<bool> finite = true;
  const auto move_as = [&]<class Block, class Format>() {
    in_parallel(threads, from.rows, [&](index first, index last) {
      widened_block piece;
      for (index i = first; i < last; ++i)
        for (index b = 0; b < blocks; ++b) {
          const index column = b * block_size;
          Block::unpack(detail::block_at<Block>(from, source_row(i), column),
                        column % Block::block / block_size, piece);
          if (!detail::is_finite(piece)) finite = false;
          detail::store_quants<Format>(piece, b, blocks, to + i * row_bytes);
        }
    });
  };
  visit_ggml_blocks(from.type, [&]<class Block>() {
    if (type == dtype::wide_16m) return move_as.template operator()<Block, wide_16m>();
    assert(type == row_type_of(from.type));
    move_as.template operator()<Block, typename detail::moved_to<Block>::rows>();
  });
  detail::require_finite(finite);
}

namespace detail {

/// How many columns are transposed at once: a cache line of a neuron's quants.
inline constexpr index tile_columns = 64;

/// Stores the neurons of one block along the rows, from neuron `n` on, in columns j..j + count; says whether
/// all their scales and minima are finite.
template <class Block>
bool move_tile(const ggml_matrix& from, index n, index j, index count, std::byte* to) {
  using format = by_neurons<Block>;
  constexpr index neurons = Block::block;
  const neuron_layout<format> layout{from.rows};
  bool finite = true;
  std::int8_t quants[tile_columns][neurons];
  widened_block piece;
  for (index i = 0; i < count; ++i)
    for (index first = 0; first < neurons; first += block_size) {
      Block::unpack(block_at<Block>(from, j + i, n), first / block_size, piece);
      finite = finite && is_finite(piece);
      store_factors<format>(piece, n + first, j + i, from.rows, to);
      std::memcpy(quants[i] + first, piece.quants, sizeof piece.quants);
    }
  for (index k = 0; k < neurons; ++k)
    store_columns<format, neurons>(quants[0] + k, j, count, to + layout.quants_at(n + k));
  return finite;
}

}  // namespace detail

/// `to`, which has room for a matrix [from.cols, from.rows] as `neuron_type_of` says, is the transposed of
/// `from`, whose rows are whole blocks of 32. Throws as above.
inline void move_neurons(const ggml_matrix& from, std::byte* to, int threads) {
  assert(from.rows % block_size == 0);
  visit_ggml_blocks(from.type, [&]<class Block>() {
    std::atomic<bool> finite = true;
    in_parallel(threads, from.cols / Block::block, [&](index first, index last) {
      for (index n = first * Block::block; n < last * Block::block; n += Block::block)
        for (index j = 0; j < from.rows; j += detail::tile_columns)
          if (!detail::move_tile<Block>(from, n, j, std::min(detail::tile_columns, from.rows - j), to))
            finite = false;
    });
    detail::require_finite(finite);
  });
}

}  // namespace corematching

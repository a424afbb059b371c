// SPDX-License-Identifier: Apache-2.0
// Rows of matrices in block formats and in planes: what they hold, and how they are written.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

/// One row of a quantised matrix.
template <block_format Q>
struct quantised_row {
  const std::byte* data;
  index length;

  quantised_row(const std::byte* row, index cols) : data(row), length(cols) {}

  index cols() const { return length; }
};

template <grouped_format Q>
struct quantised_row<Q> {
  const std::byte* data;
  row_layout<Q> layout;

  quantised_row(const std::byte* row, index cols) : data(row), layout{cols / block_size} {}

  index cols() const { return layout.blocks * block_size; }
  /// The scale of block `b`, with those of the other blocks of its group around it.
  const f16* scale(index b) const { return reinterpret_cast<const f16*>(data + layout.scale_at(b)); }
  /// The quants of block `b`.
  const std::uint8_t* block(index b) const {
    return reinterpret_cast<const std::uint8_t*>(data + layout.quants_at(b));
  }
};

/// The bits of the quants of one block, or the bytes of a number; in both planes others follow.
struct plane_block {
  const std::uint8_t* upper;
  const std::uint8_t* lower;
};

template <grouped_plane_format Q>
struct quantised_row<Q> {
  const std::byte* upper;
  const std::byte* lower;
  index blocks;

  quantised_row(const std::byte* matrix, plane_layout<Q> layout, index i)
      : upper(matrix + layout.upper_at(i)), lower(matrix + layout.lower_at(i)), blocks(layout.blocks) {}

  index cols() const { return blocks * block_size; }
  /// The scale of block `b`, followed by those of the blocks behind it.
  const f16* scale(index b) const { return reinterpret_cast<const f16*>(upper) + b; }
  plane_block block(index b) const {
    return {reinterpret_cast<const std::uint8_t*>(scale(blocks)) + b * Q::half_bytes,
            reinterpret_cast<const std::uint8_t*>(lower) + b * Q::half_bytes};
  }
};

/// A super-block whose quants are in planes.
struct split_super_block {
  const packed_factors& factors;
  plane_block quants;
};

template <super_plane_format Q>
struct quantised_row<Q> {
  const std::byte* upper;
  const std::byte* lower;
  index blocks;

  quantised_row(const std::byte* matrix, plane_layout<Q> layout, index i)
      : upper(matrix + layout.upper_at(i)), lower(matrix + layout.lower_at(i)), blocks(layout.blocks) {}

  index cols() const { return blocks * format_traits<Q>::block; }
  const packed_factors& factors(index b) const { return reinterpret_cast<const packed_factors*>(upper)[b]; }
  plane_block block(index b) const {
    return {reinterpret_cast<const std::uint8_t*>(upper + blocks * Q::scale_bytes) + b * Q::half_bytes,
            reinterpret_cast<const std::uint8_t*>(lower) + b * Q::half_bytes};
  }
  split_super_block operator[](index b) const { return {factors(b), block(b)}; }
};

template <number_plane_format Q>
struct quantised_row<Q> {
  plane_block bytes;
  index length;

  quantised_row(const std::byte* matrix, plane_layout<Q> layout, index i)
      : bytes{reinterpret_cast<const std::uint8_t*>(matrix + layout.upper_at(i)),
              reinterpret_cast<const std::uint8_t*>(matrix + layout.lower_at(i))},
        length(layout.blocks) {}

  index cols() const { return length; }
  plane_block block(index b) const { return {bytes.upper + b, bytes.lower + b}; }
  float operator[](index i) const { return to_float(Q::merged(bytes.upper[i], bytes.lower[i])); }
};

/// One neuron's quants, and the scales and minima that it shares with others.
template <neuron_format Q>
struct quantised_row<Q> {
  const std::uint8_t* quants;
  const float* scales;
  const float* minima;  // not to be read where the format has none
  index length;

  quantised_row(const std::byte* matrix, neuron_layout<Q> layout, index n)
      : quants(reinterpret_cast<const std::uint8_t*>(matrix + layout.quants_at(n))),
        scales(reinterpret_cast<const float*>(matrix + layout.scales_at(n))),
        minima(reinterpret_cast<const float*>(matrix + layout.minima_at(n))),
        length(layout.cols) {}

  index cols() const { return length; }
};

/// Row `i` of a host weight that is stored as `Q`.
template <block_format Q>
quantised_row<Q> blocks_of_row(const stored_view<host_space>& weight, index i) {
  assert(weight.type == dtype_of<Q>);
  if constexpr (plane_format<Q>)
    return {weight.data, plane_layout<Q>::of(weight.rows, weight.cols), i};
  else if constexpr (neuron_format<Q>)
    return {weight.data, neuron_layout<Q>{weight.cols}, i};
  else
    return {weight.data + i * weight.row_bytes, weight.cols};
}

/// Writes `cols` finite values, whole blocks, as row `i` of a matrix of `rows` rows without gaps between
/// them, stored as `Q` from `matrix` on.
template <block_format Q>
requires(!moved_format<Q>) void quantise_row(const float* from, index cols, std::byte* matrix, index rows,
                                             index i) {
  assert(cols % format_traits<Q>::block == 0);
  if constexpr (number_plane_format<Q>) {
    const auto layout = plane_layout<Q>::of(rows, cols);
    std::byte *upper = matrix + layout.upper_at(i), *lower = matrix + layout.lower_at(i);
    for (index j = 0; j < cols; ++j) {
      const auto bytes = Q::split(Q::narrowed(from[j]));
      upper[j] = std::byte{bytes[0]};
      lower[j] = std::byte{bytes[1]};
    }
  } else if constexpr (grouped_plane_format<Q>) {
    const auto layout = plane_layout<Q>::of(rows, cols);
    std::byte *scales = matrix + layout.upper_at(i), *upper = scales + layout.blocks * Q::scale_bytes,
              *lower = matrix + layout.lower_at(i);
    for (index b = 0; b < layout.blocks; ++b) {
      std::uint8_t quants[quant_bytes<typename Q::whole>], bits[2][Q::half_bytes];
      const f16 scale = Q::whole::quantise(from + b * block_size, quants);
      Q::split(quants, bits[0], bits[1]);
      std::memcpy(scales + b * Q::scale_bytes, &scale, sizeof scale);
      std::memcpy(upper + b * Q::half_bytes, bits[0], sizeof bits[0]);
      std::memcpy(lower + b * Q::half_bytes, bits[1], sizeof bits[1]);
    }
  } else {
    format_traits<Q>::store(
        from, cols, matrix + i * static_cast<index>(bytes_of(dtype_of<Q>, static_cast<std::size_t>(cols))));
  }
}

/// Splits a row of quants into row `i` of a matrix of `rows` rows without gaps between them, in planes from
/// `matrix` on. No number is changed.
template <quant_plane_format Q>
void split_row(const quantised_row<typename Q::whole>& from, std::byte* matrix, index rows, index i) {
  const auto layout = plane_layout<Q>::of(rows, from.cols());
  std::byte *factors = matrix + layout.upper_at(i), *upper = factors + layout.blocks * Q::scale_bytes,
            *lower = matrix + layout.lower_at(i);
  for (index b = 0; b < layout.blocks; ++b) {
    std::uint8_t bits[2][Q::half_bytes];
    if constexpr (super_plane_format<Q>) {
      const auto& block = reinterpret_cast<const typename Q::whole::stored*>(from.data)[b];
      std::memcpy(factors + b * Q::scale_bytes, &block.factors, sizeof block.factors);
      Q::split(block, bits[0], bits[1]);
    } else {
      std::memcpy(factors + b * Q::scale_bytes, from.scale(b), Q::scale_bytes);
      Q::split(from.block(b), bits[0], bits[1]);
    }
    std::memcpy(upper + b * Q::half_bytes, bits[0], sizeof bits[0]);
    std::memcpy(lower + b * Q::half_bytes, bits[1], sizeof bits[1]);
  }
}

namespace detail {

/// The values of the blocks first..last of a row, of super-blocks of its pieces of 32.
template <grouped_plane_format Q>
COREMATCHING_OPAQUE void dequantise_blocks(const quantised_row<Q>& row, index first, index last, float* to) {
  for (index b = first; b < last; ++b, to += block_size) {
    const auto [upper, lower] = row.block(b);
    const auto quants = Q::merged(upper, lower);  // by name: GCC 12 loses a temporary in vectorised code
    Q::whole::widen(quants.data(), to_float(*row.scale(b)), to);
  }
}

template <super_plane_format Q>
COREMATCHING_OPAQUE void dequantise_blocks(const quantised_row<Q>& row, index first, index last, float* to) {
  constexpr index pieces = format_traits<Q>::block / block_size;
  for (index b = first; b < last; ++b, to += block_size) {
    const auto [step, offset] = row.factors(b / pieces).of_group(b % pieces);
    const auto [upper, lower] = row.block(b / pieces);
    std::uint8_t quants[block_size];
    Q::merge(upper + b % pieces * Q::piece_bytes, lower + b % pieces * Q::piece_bytes, quants);
    for (index i = 0; i < block_size; ++i) to[i] = step * static_cast<float>(quants[i]) - offset;
  }
}

/// The quants of a neuron as numbers.
template <neuron_format Q>
void widen_quants(const quantised_row<Q>& row, index first, index count, float* to) {
  if constexpr (Q::bits == 8) {
    for (index j = 0; j < count; ++j)
      to[j] = static_cast<float>(static_cast<std::int8_t>(row.quants[first + j]));
  } else {
    constexpr index half = block_size / 2;
    for (index j = 0; j < count; j += block_size)
      for (index i = 0; i < half; ++i) {
        const int pair = row.quants[(first + j) / 2 + i];
        to[j + i] = static_cast<float>((pair & 15) - Q::quant_offset);
        to[j + half + i] = static_cast<float>((pair >> 4) - Q::quant_offset);
      }
  }
}

}  // namespace detail

/// The values of `count` weights of a row from weight `first` on; both whole groups of the format.
template <block_format Q>
void dequantise(const quantised_row<Q>& row, index first, index count, float* to) {
  assert(first % format_traits<Q>::group == 0 && count % format_traits<Q>::group == 0);
  if constexpr (number_plane_format<Q>) {
    for (index j = 0; j < count; ++j) to[j] = row[first + j];
  } else if constexpr (quant_plane_format<Q>) {
    detail::dequantise_blocks(row, first / block_size, (first + count) / block_size, to);
  } else if constexpr (neuron_format<Q>) {
    detail::widen_quants(row, first, count, to);
    for (index j = 0; j < count; ++j) {
      to[j] *= row.scales[first + j];
      if constexpr (Q::has_minimum) to[j] += row.minima[first + j];
    }
  } else {
    format_traits<Q>::widen(row.data, row.cols(), first, count, to);
  }
}

/// What the upper plane alone says of all weights of a row.
template <plane_format Q>
void dequantise_upper(const quantised_row<Q>& row, float* to) {
  if constexpr (number_plane_format<Q>) {
    for (index j = 0; j < row.length; ++j) to[j] = to_float(Q::middle(row.bytes.upper[j]));
  } else {
    // Of 32 weights, whose bits begin at `upper`.
    const auto widen = [&to](const std::uint8_t* upper, float scale, float minimum) {
      constexpr index bytes = block_size * Q::plane_bits / 8;
      const float step = Q::coarse_step * scale;
      for (index i = 0; i < block_size; ++i) {
        const int bits = upper[i % bytes] >> Q::plane_bits * (i / bytes);
        *to++ = step * (static_cast<float>(bits & ((1 << Q::plane_bits) - 1)) - Q::coarse_offset) - minimum;
      }
    };
    for (index b = 0; b < row.blocks; ++b) {
      const std::uint8_t* const upper = row.block(b).upper;
      if constexpr (super_plane_format<Q>) {
        for (index i = 0; i < Q::half_bytes / Q::piece_bytes; ++i) {
          const auto [scale, minimum] = row.factors(b).of_group(i);
          widen(upper + i * Q::piece_bytes, scale, minimum);
        }
      } else {
        widen(upper, to_float(*row.scale(b)), 0);
      }
    }
  }
}

/// Copies rows of a matrix [rows, cols] of weights, all without gaps, to one that has those `which` alone.
/// Throws `error` where rows share their scales.
inline void copy_weight_rows(dtype type, const std::byte* from, index rows, index cols, index_view<> which,
                             std::byte* to) {
  const auto copy = [&](std::byte* to_part, const std::byte* from_part, index row_bytes) {
    for (index i = 0; i < which.size; ++i)
      std::memcpy(to_part + i * row_bytes, from_part + which[i] * row_bytes,
                  static_cast<std::size_t>(row_bytes));
  };
  require(!shares_scales(type), "rows of ", name_of(type), " cannot be copied without their neighbours");
  visit_dtype(type, [&]<class T>() {
    if constexpr (plane_format<T>) {
      const auto all = plane_layout<T>::of(rows, cols), some = plane_layout<T>::of(which.size, cols);
      copy(to, from, all.upper_bytes());
      copy(to + some.lower_at(0), from + all.lower_at(0), all.lower_bytes());
    } else {
      copy(to, from, static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols))));
    }
  });
}

}  // namespace corematching

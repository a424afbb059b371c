// SPDX-License-Identifier: Apache-2.0
// The block formats q8_0 and q4_0: 32 consecutive weights of a row share one binary16 scale. Values and
// rounding are ggml's (https://github.com/ggml-org/ggml, ggml-quants.c), so that figures compare type by
// type. The layout is not: blocks stand in groups of eight, the last of a row may be smaller, and of each
// group first all scales, then all quants (`row_layout`). So a kernel loads eight scales at once, reads a row
// as one stream, and finds the quants of whole groups at multiples of 16 bytes. In a q4_0 block, byte i holds
// weight i in its low half and weight i + 16 in its high half, each 8 too large.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/dtype.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

/// What a q4_0 quant is stored larger by.
inline constexpr int q4_0_offset = 8;

/// Bytes of quants in one block.
template <block_format Q>
inline constexpr index quant_bytes = dtype_of<Q> == dtype::q8_0 ? block_size : block_size / 2;

/// Blocks whose scales stand together.
inline constexpr index group_blocks = 8;

/// Bytes of a whole group.
template <block_format Q>
inline constexpr index group_bytes = group_blocks*(quant_bytes<Q> + index{sizeof(f16)});

/// Where a row of `blocks` blocks has its parts, in bytes from its beginning.
template <block_format Q>
struct row_layout {
  index blocks;

  constexpr index scale_at(index b) const {
    return b / group_blocks * group_bytes<Q> + b % group_blocks * index{sizeof(f16)};
  }
  constexpr index quants_at(index b) const {
    const index in_group = std::min(group_blocks, blocks - b / group_blocks * group_blocks);
    return b / group_blocks * group_bytes<Q> + in_group * index{sizeof(f16)} +
           b % group_blocks * quant_bytes<Q>;
  }
};

/// One row of a quantised matrix.
template <block_format Q>
struct quantised_row {
  const std::byte* data;
  row_layout<Q> layout;

  quantised_row(const std::byte* row, index cols) : data(row), layout{cols / block_size} {}

  /// The scale of block `b`, with those of the other blocks of its group around it.
  const f16* scale(index b) const { return reinterpret_cast<const f16*>(data + layout.scale_at(b)); }
  /// The quants of block `b`.
  const std::uint8_t* block(index b) const {
    return reinterpret_cast<const std::uint8_t*>(data + layout.quants_at(b));
  }
};

/// Row `i` of a host weight that is stored as `Q`.
template <block_format Q>
quantised_row<Q> blocks_of_row(const stored_view<host_space>& weight, index i) {
  assert(weight.type == dtype_of<Q>);
  return {weight.data + i * weight.row_bytes, weight.cols};
}

namespace detail {

// std::round() of a value of small magnitude, without the call that it is. What is added is the float below
// 0.5: with 0.5 itself, the float below 0.5 would become 1.
inline int nearest(float value) {
  return static_cast<int>(value + std::copysign(0x1.fffffep-2f, value));
}

// q = round(x / d), d = max |x| / 127
inline f16 quantise_block(const float* x, std::uint8_t* quants, q8_0) {
  float largest = 0;
  for (index i = 0; i < block_size; ++i) largest = std::max(largest, std::abs(x[i]));
  const float scale = largest / 127.0f;
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
  for (index i = 0; i < block_size; ++i)
    quants[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(nearest(x[i] * inverse)));
  return to_f16(scale);
}

// d = (the x of largest magnitude) / -8, so that it becomes quant 0; q = min(15, floor(x / d + 8.5))
inline f16 quantise_block(const float* x, std::uint8_t* quants, q4_0) {
  float extreme = 0;
  for (index i = 0; i < block_size; ++i)
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  const float scale = extreme / -8.0f;
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
  const auto quant = [&](float value) {
    return static_cast<std::uint8_t>(std::min(15, static_cast<int>(value * inverse + 8.5f)));
  };
  for (index i = 0; i < block_size / 2; ++i)
    quants[i] = static_cast<std::uint8_t>(quant(x[i]) | quant(x[i + block_size / 2]) << 4);
  return to_f16(scale);
}

inline void dequantise_block(const std::uint8_t* quants, float scale, float* x, q8_0) {
  for (index i = 0; i < block_size; ++i)
    x[i] = scale * static_cast<float>(static_cast<std::int8_t>(quants[i]));
}

inline void dequantise_block(const std::uint8_t* quants, float scale, float* x, q4_0) {
  for (index i = 0; i < block_size / 2; ++i) {
    x[i] = scale * static_cast<float>((quants[i] & 15) - q4_0_offset);
    x[i + block_size / 2] = scale * static_cast<float>((quants[i] >> 4) - q4_0_offset);
  }
}

}  // namespace detail

/// Writes `cols` finite values, a multiple of block_size, as one row of format `Q`: bytes_of(Q, cols) bytes.
template <block_format Q>
void quantise_row(const float* from, index cols, std::byte* to) {
  assert(cols % block_size == 0);
  const row_layout<Q> layout{cols / block_size};
  for (index b = 0; b < layout.blocks; ++b) {
    auto* quants = reinterpret_cast<std::uint8_t*>(to + layout.quants_at(b));
    const f16 scale = detail::quantise_block(from + b * block_size, quants, Q{});
    std::memcpy(to + layout.scale_at(b), &scale, sizeof scale);
  }
}

/// The values of `count` weights of a row from weight `first` on; both multiples of block_size.
template <block_format Q>
void dequantise(const quantised_row<Q>& row, index first, index count, float* to) {
  assert(first % block_size == 0 && count % block_size == 0);
  for (index b = first / block_size; b < (first + count) / block_size; ++b, to += block_size)
    detail::dequantise_block(row.block(b), to_float(*row.scale(b)), to, Q{});
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Rows of matrices in block formats: what they hold, and how they are written.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "corematching/core/dtype.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
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

/// Row `i` of a host weight that is stored as `Q`.
template <block_format Q>
quantised_row<Q> blocks_of_row(const stored_view<host_space>& weight, index i) {
  assert(weight.type == dtype_of<Q>);
  return {weight.data + i * weight.row_bytes, weight.cols};
}

/// Writes `cols` finite values, whole blocks, as one row of format `Q`: bytes_of(Q, cols) bytes.
template <block_format Q>
void quantise_row(const float* from, index cols, std::byte* to) {
  assert(cols % format_traits<Q>::block == 0);
  format_traits<Q>::store(from, cols, to);
}

/// The values of `count` weights of a row from weight `first` on; both whole groups of the format.
template <block_format Q>
void dequantise(const quantised_row<Q>& row, index first, index count, float* to) {
  assert(first % format_traits<Q>::group == 0 && count % format_traits<Q>::group == 0);
  format_traits<Q>::widen(row.data, row.cols(), first, count, to);
}

}  // namespace corematching

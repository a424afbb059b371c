// SPDX-License-Identifier: Apache-2.0
// The tokens of a product with many of them, in the order in which panel_kernels.hpp reads them: panel_depth
// elements of all tokens, then the next ones. Made once for a product, read again for each panel of weights.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include "corematching/backend/cpu/decode/rounded_tokens.hpp"
#include "corematching/backend/cpu/memory/growing_buffer.hpp"
#include "corematching/backend/cpu/prefill/panel_kernels.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Tokens as they are (float), or rounded to 16 or 8 bits in blocks of 32 elements.
template <class X>
class packed_tokens {
 public:
  static constexpr index depth = panel_depth<X>;

  /// Makes room for `rows` tokens of `cols` elements.
  void reserve(index rows, index cols) {
    rows_ = rows;
    cols_ = cols;
    values_.at_least(chunks() * padded_rows() * depth);
    if constexpr (rounds) scales_.at_least(chunks() * padded_rows() * blocks_in_panel<X>);
    if constexpr (rounds) sums_.at_least(chunks() * padded_rows() * groups_in_panel<X>);
    if constexpr (bytes) start_.at_least(chunks() * padded_rows() * blocks_in_panel<X>);
  }

  index cols() const { return cols_; }
  index chunks() const { return (cols_ + depth - 1) / depth; }
  index panels() const { return (rows_ + panel_tokens - 1) / panel_tokens; }
  /// Tokens and, behind them, zeros that fill the last panel.
  index padded_rows() const { return panels() * panel_tokens; }

  /// Copies or rounds the tokens of panels first..last of `x`; threads may each set some panels.
  void assign(matrix_view<const float> x, index first, index last) {
    assert(x.rows == rows_ && x.cols == cols_);
    for (index row = first * panel_tokens; row < last * panel_tokens; ++row)
      for (index chunk = 0; chunk < chunks(); ++chunk) {
        const index column = chunk * depth, count = std::min(depth, cols_ - column);
        if (row < rows_)
          set(row, chunk, x.row(row).data + column, count);
        else
          clear(row, chunk);
      }
  }

  token_panel<X> panel(index chunk, index panel) {
    const index row = panel * panel_tokens;
    return {values(row, chunk), rounds ? scales(row, chunk) : nullptr, rounds ? sums(row, chunk) : nullptr,
            bytes ? start(row, chunk) : nullptr};
  }

 private:
  static constexpr bool rounds = !std::is_same_v<X, float>;
  static constexpr bool bytes = std::is_same_v<X, std::int8_t>;

  X* values(index row, index chunk) { return values_.at_least(0) + (chunk * padded_rows() + row) * depth; }
  float* scales(index row, index chunk) {
    return scales_.at_least(0) + (chunk * padded_rows() + row) * blocks_in_panel<X>;
  }
  float* sums(index row, index chunk) {
    return sums_.at_least(0) + (chunk * padded_rows() + row) * groups_in_panel<X>;
  }
  std::int32_t* start(index row, index chunk) {
    return start_.at_least(0) + (chunk * padded_rows() + row) * blocks_in_panel<X>;
  }

  void set(index row, index chunk, const float* from, index count) {
    X* to = values(row, chunk);
    if constexpr (rounds) {
      float* scale = scales(row, chunk);
      index i = 0;
      for (; i + block_size <= count; i += block_size) round_block(from + i, to + i, *scale++);
      if (i < count) {
        float padded[block_size] = {};
        std::copy(from + i, from + count, padded);
        round_block(padded, to + i, *scale);
      }
      const index blocks = (count + block_size - 1) / block_size;
      set_sums(row, chunk, blocks);
      if constexpr (bytes) set_start(row, chunk, blocks);
    } else {
      std::copy_n(from, count, to);
    }
  }

  static std::int32_t sum(const X* quants, index count) {
    return std::accumulate(quants, quants + count, std::int32_t{0});
  }

  void set_sums(index row, index chunk, index blocks) {
    const X* quants = values(row, chunk);
    for (index i = 0; i < blocks * block_size / least_group; ++i, quants += least_group)
      sums(row, chunk)[i] =
          scales(row, chunk)[i * least_group / block_size] * static_cast<float>(sum(quants, least_group));
  }

  /// Takes back what weights are stored larger by.
  void set_start(index row, index chunk, index blocks) {
    const X* quants = values(row, chunk);
    for (index b = 0; b < blocks; ++b, quants += block_size) start(row, chunk)[b] = start_of(quants);
  }
  static std::int32_t start_of(const X* quants) {
#if COREMATCHING_HAS_VNNI
    return -panel_byte_offset * sum(quants, block_size);
#else  // each half of a lane sums two of every four
    std::int32_t even = 0, odd = 0;
    for (index i = 0; i < block_size; i += 4) {
      even += sum(quants + i, 2);
      odd += sum(quants + i + 2, 2);
    }
    return ((-panel_byte_offset * even) & 0xffff) |
           static_cast<std::int32_t>(static_cast<std::uint32_t>(-panel_byte_offset * odd) << 16);
#endif
  }

  void clear(index row, index chunk) {
    std::fill_n(values(row, chunk), depth, X{});
    if constexpr (rounds) std::fill_n(scales(row, chunk), blocks_in_panel<X>, 0.0f);
    if constexpr (rounds) std::fill_n(sums(row, chunk), groups_in_panel<X>, 0.0f);
    if constexpr (bytes) std::fill_n(start(row, chunk), blocks_in_panel<X>, 0);
  }

  growing_buffer<X> values_;
  growing_buffer<float> scales_;
  growing_buffer<float> sums_;
  growing_buffer<std::int32_t> start_;
  index rows_ = 0;
  index cols_ = 0;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

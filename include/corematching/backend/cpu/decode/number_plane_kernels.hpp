// SPDX-License-Identifier: Apache-2.0
// Dot products of rows of numbers in two planes: of both, which are those of the whole format to the bit, and
// of the upper one alone, which is a coarse form of the row.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/decode/row_stream.hpp"
#include "corematching/backend/cpu/formats/all.hpp"
#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/core/quantised.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

inline const std::uint8_t* bytes_of(const row_stream& stream) {
  return reinterpret_cast<const std::uint8_t*>(stream.row);
}

/// Rows as dot_numbers() reads them.
template <number_plane_format Q, std::size_t Rows>
class number_plane_rows {
 public:
  number_plane_rows(const plane_streams<Rows>& rows, index size)
      : rows_(rows), bytes_(size), lead_(std::min(dot_lead, bytes_)) {}
  f32x8 load(std::size_t r, index i) const { return format_kernels<Q>::load(bytes_at(r, i)); }
  float at(std::size_t r, index i) const {
    const auto [upper, lower] = bytes_at(r, i);
    return to_float(Q::merged(*upper, *lower));
  }
  /// A cache line of each plane serves two steps.
  void prefetch(index i) const {
    if (i % 64 != 0) return;
    prefetch_step<1>(rows_.upper, i + lead_, bytes_);
    prefetch_step<1>(rows_.lower, i + lead_, bytes_);
  }

 private:
  plane_block bytes_at(std::size_t r, index i) const {
    return {bytes_of(rows_.upper[r]) + i, bytes_of(rows_.lower[r]) + i};
  }

  const plane_streams<Rows>& rows_;
  index bytes_, lead_;
};

/// result[r] = sum over i < size of row r's element i, as its upper plane alone says, * x[i]
template <number_plane_format Q, std::size_t Rows>
std::array<float, Rows> dot_coarse(const row_streams<Rows>& rows, const float* x, index size) {
  constexpr index step = 64, lanes = 16;
  const index lead = std::min(dot_lead, size);
  std::array<f32x16, Rows> sums;
  sums.fill(f32x16::zero());
  const auto add = [&](index i) {
    const f32x16 token = f32x16::load(x + i);
    for (std::size_t r = 0; r < Rows; ++r)
      sums[r] = fma(format_kernels<Q>::load_coarse(bytes_of(rows[r]) + i), token, sums[r]);
  };
  index i = 0;
  for (; i + step <= size; i += step) {
    prefetch_step<1>(rows, i + lead, size);
    for (index j = i; j < i + step; j += lanes) add(j);
  }
  for (; i + lanes <= size; i += lanes) add(i);
  std::array<float, Rows> result;
  for (std::size_t r = 0; r < Rows; ++r) {
    result[r] = sums[r].sum();
    for (index j = i; j < size; ++j) result[r] += to_float(Q::middle(bytes_of(rows[r])[j])) * x[j];
  }
  return result;
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

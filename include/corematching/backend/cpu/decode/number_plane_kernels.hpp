// SPDX-License-Identifier: Apache-2.0
// Rows of numbers in two planes, for dot products: of both, which are those of the whole format to the bit,
// and of the upper one alone, which is a coarse form of the row.
#pragma once

#include <algorithm>
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

/// Rows as dot_numbers() reads them: both planes.
template <number_plane_format Q, std::size_t Rows>
class number_plane_rows {
 public:
  static constexpr index step = 64;  // a cache line of each plane

  number_plane_rows(const plane_streams<Rows>& rows, index size)
      : rows_(rows), bytes_(size), lead_(std::min(dot_lead, bytes_)) {}
  f32x16 load(std::size_t r, index i) const {
    return format_kernels<Q>::template load<f32x16>(bytes_at(r, i));
  }
  float at(std::size_t r, index i) const {
    const auto [upper, lower] = bytes_at(r, i);
    return to_float(Q::merged(*upper, *lower));
  }
  void prefetch(index i) const {
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

/// Of them the upper planes alone, coarse numbers.
template <number_plane_format Q, std::size_t Rows>
class coarse_rows {
 public:
  static constexpr index step = 64;

  coarse_rows(const row_streams<Rows>& rows, index size)
      : rows_(rows), bytes_(size), lead_(std::min(dot_lead, bytes_)) {}
  f32x16 load(std::size_t r, index i) const { return format_kernels<Q>::load_coarse(bytes_of(rows_[r]) + i); }
  float at(std::size_t r, index i) const { return to_float(Q::middle(bytes_of(rows_[r])[i])); }
  void prefetch(index i) const { prefetch_step<1>(rows_, i + lead_, bytes_); }

 private:
  const row_streams<Rows>& rows_;
  index bytes_, lead_;
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

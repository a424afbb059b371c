// SPDX-License-Identifier: Apache-2.0
// What decode/super_kernels.hpp asks of a format in super-blocks, and what several of them share. They
// specialise format_kernels with
//   token                 16-bit integers, or bytes
//   token_factors(scales, sums)
//                         what they need of a token's eight blocks of 32 (rounded_token)
//   row_factors<stored, Rows>(blocks)
//                         what they have of a block in each of some rows, and its member
//   set_scales(r, factors, scales, minima)
//                         scales[i] = the scale of group i of row r times the token's; returns `minima`, to
//                         which the products of the block's minima with the token are added
//   together              how many pieces of 32 weights, one after the other, share bytes of the block
//   quants<Piece>(block)  the quants of one of its eight pieces
//   bytes<Piece>(block)   with AVX2: the same as bytes that are offset_of_bytes too large
//   bytes_of_two<Piece>(block)
//                         with AVX-512: those of two pieces, one after the other
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cpu/formats/unpacked_factors.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/formats/super_blocks.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Of formats whose blocks begin with packed_factors. Products of their quants, of four bits or five, with
/// bytes take half of the instructions where a vector has such.
struct factored_kernels {
  static constexpr int offset_of_bytes = 0;
#if COREMATCHING_HAS_AVX2
  using token = std::int8_t;
#else
  using token = std::int16_t;
#endif
  static constexpr int together = 2;

  struct token_factors {
    f32x8 scales, sums;

    token_factors(const float* of_scales, const float* of_sums)
        : scales(f32x8::load(of_scales)), sums(f32x8::load(of_sums)) {}
  };

  template <class Stored, std::size_t Rows>
  class row_factors {
   public:
    explicit row_factors(const std::array<const Stored*, Rows>& blocks)
        : factors_(factors_of(blocks)), integers_(factors_) {}

    f32x8 set_scales(std::size_t r, const token_factors& x, float* scales, f32x8 minima) const {
      const f32x8 d = f32x8::broadcast(factors_[r]->scale), m = f32x8::broadcast(factors_[r]->minimum);
      (d * f32x8::load(integers_.scales(r)) * x.scales).store(scales);
      return fma(m * f32x8::load(integers_.minima(r)), x.sums, minima);
    }

   private:
    static std::array<const packed_factors*, Rows> factors_of(const std::array<const Stored*, Rows>& blocks) {
      std::array<const packed_factors*, Rows> all;
      for (std::size_t r = 0; r < Rows; ++r) all[r] = &blocks[r]->factors;
      return all;
    }

    std::array<const packed_factors*, Rows> factors_;
    unpacked_factors<Rows> integers_;
  };
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

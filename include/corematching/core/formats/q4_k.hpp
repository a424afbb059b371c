// SPDX-License-Identifier: Apache-2.0
// ggml's q4_k, as files of GGUF store it: blocks of 256 elements in eight groups of 32. A group has a quant
// of four bits for each element, and a scale and a minimum of six bits, which are multiples of the block's
// own:
//   x = (d scale) q - (dmin minimum)
// A block is d and dmin, two binary16, 12 bytes of scales and minima, and 128 bytes of quants, of which byte
// i of each 32 holds element i of an even group in its low half and of the odd group after it in its high
// half.
#pragma once

#include <cstdint>
#include <cstring>

#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q4_k : super_blocks<32, true> {
  /// A block, as it is stored.
  struct stored {
    packed_factors factors;
    std::uint8_t quants[groups / 2][group];
  };

  static bool is_finite(const stored& from) { return from.factors.is_finite(); }

  static packed_factors::factors factors_of(const stored& from, index i) { return from.factors.of_group(i); }

  // Products with quants are exact: they have 11 + 6 + 4 bits. Only the difference is rounded, whether the
  // compiler fuses it with a product or not.
  static void widen(const stored& from, index i, float* to) {
    const auto [step, offset] = factors_of(from, i);
    std::uint8_t pair[group];
    std::memcpy(pair, from.quants[i / 2], sizeof pair);
    for (index j = 0; j < group; ++j)
      to[j] = step * static_cast<float>((pair[j] >> (4 * (i % 2))) & 15) - offset;
  }
};

template <>
struct format_traits<q4_k> : detail::super_traits<q4_k> {
  static constexpr const char* name = "q4_k";
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// ggml's q5_k, as files of GGUF store it: q4_k with a fifth bit for each quant. They stand between the scales
// and the other four bits, 32 bytes of which byte i has those of the elements i of the eight groups, from the
// lowest on.
#pragma once

#include <cstdint>
#include <cstring>

#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct q5_k : super_blocks<32, true> {
  /// A block, as it is stored.
  struct stored {
    packed_factors factors;
    std::uint8_t fifth_bits[group];
    std::uint8_t quants[groups / 2][group];
  };

  static bool is_finite(const stored& from) { return from.factors.is_finite(); }

  static packed_factors::factors factors_of(const stored& from, index i) { return from.factors.of_group(i); }

  // As q4_k's products, these are exact.
  static void widen(const stored& from, index i, float* to) {
    const auto [step, offset] = factors_of(from, i);
    std::uint8_t pair[group], fifth[group];
    std::memcpy(pair, from.quants[i / 2], sizeof pair);
    std::memcpy(fifth, from.fifth_bits, sizeof fifth);
    for (index j = 0; j < group; ++j)
      to[j] =
          step * static_cast<float>(((pair[j] >> (4 * (i % 2))) & 15) | ((fifth[j] >> i) & 1) << 4) - offset;
  }
};

template <>
struct format_traits<q5_k> : detail::super_traits<q5_k> {
  static constexpr const char* name = "q5_k";
};

}  // namespace corematching

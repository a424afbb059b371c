// SPDX-License-Identifier: Apache-2.0
// Blocks of 32 weights as GGUF files store them, taken apart into quants, scales and minima. Each type says
//   index block, bytes    weights and bytes of a block
//   index group           of these, the ones that share a scale
//   bool has_minimum      whether a minimum is added
//   static void unpack(const std::uint8_t* from, index piece, widened_block& to)
//     32 weights from 32 piece on of the block at `from`
//
// Source of the layouts: https://github.com/ggml-org/ggml (ggml-common.h, ggml-quants.c).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/index.hpp"

namespace corematching::io {

namespace detail {

/// A binary16 in little-endian order.
inline float half_at(const std::uint8_t* from) {
  f16 number;
  std::memcpy(&number, from, sizeof number);
  return to_float(number);
}

inline void set_factors(widened_block& to, float scale, float minimum = -0.0f) {
  std::ranges::fill(to.scales, scale);
  std::ranges::fill(to.minima, minimum);
}

/// Element i in the low half of byte i and element i + 16 in its high half; value(nibble, element) is the
/// quant.
template <class Value>
void unpack_nibbles(const std::uint8_t* from, widened_block& to, Value&& value) {
  constexpr index half = block_size / 2;
  for (index i = 0; i < half; ++i) {
    to.quants[i] = static_cast<std::int8_t>(value(from[i] & 15, i));
    to.quants[i + half] = static_cast<std::int8_t>(value(from[i] >> 4, i + half));
  }
}

/// What the nibbles of the types "nl" and "xs" stand for.
inline constexpr std::int8_t nonlinear_quants[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                     1,    13,   25,  38,  53,  69,  89,  113};

/// A type whose blocks are `block_size` weights in `Bytes` bytes.
template <index Bytes, bool Minimum>
struct small_block {
  static constexpr index block = block_size, group = block_size, bytes = Bytes;
  static constexpr bool has_minimum = Minimum;
};

}  // namespace detail

/// d, quants of four bits, 8 too large
struct ggml_q4_0 : detail::small_block<18, false> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from));
    detail::unpack_nibbles(from + 2, to, [](int nibble, index) { return nibble - 8; });
  }
};

/// d, m, quants of four bits
struct ggml_q4_1 : detail::small_block<20, true> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from), detail::half_at(from + 2));
    detail::unpack_nibbles(from + 4, to, [](int nibble, index) { return nibble; });
  }
};

namespace detail {

/// Quants of five bits: the fifth ones of all stand in 32 bits in front of the nibbles.
inline void unpack_five_bits(const std::uint8_t* from, int offset, widened_block& to) {
  std::uint32_t high;
  std::memcpy(&high, from, sizeof high);
  unpack_nibbles(from + sizeof high, to, [&](int nibble, index i) {
    return (nibble | static_cast<int>((high >> i) & 1) << 4) - offset;
  });
}

}  // namespace detail

/// d, quants of five bits, 16 too large
struct ggml_q5_0 : detail::small_block<22, false> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from));
    detail::unpack_five_bits(from + 2, 16, to);
  }
};

/// d, m, quants of five bits
struct ggml_q5_1 : detail::small_block<24, true> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from), detail::half_at(from + 2));
    detail::unpack_five_bits(from + 4, 0, to);
  }
};

/// d, quants of eight bits
struct ggml_q8_0 : detail::small_block<34, false> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from));
    std::memcpy(to.quants, from + 2, sizeof to.quants);
  }
};

/// d, quants of four bits that name one of sixteen values
struct ggml_iq4_nl : detail::small_block<18, false> {
  static void unpack(const std::uint8_t* from, index, widened_block& to) {
    detail::set_factors(to, detail::half_at(from));
    detail::unpack_nibbles(from + 2, to, [](int nibble, index) { return detail::nonlinear_quants[nibble]; });
  }
};

}  // namespace corematching::io

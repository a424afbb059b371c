// SPDX-License-Identifier: Apache-2.0
// Bytes from Base64 (RFC 4648, section 4): the standard alphabet, padded, and nothing in between.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"

namespace corematching::io {

namespace detail {

inline constexpr std::string_view base64_digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// The value of each character, -1 where it is none of the digits.
inline constexpr std::array<std::int8_t, 256> base64_values = [] {
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < base64_digits.size(); ++i)
    values[static_cast<unsigned char>(base64_digits[i])] = static_cast<std::int8_t>(i);
  return values;
}();

}  // namespace detail

/// Throws, with the position of what is wrong, if `text` is not Base64.
inline std::vector<std::byte> decode_base64(std::string_view text) {
  require(text.size() % 4 == 0, "its length of ", text.size(), " is no multiple of 4");
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size() - padding; ++i) {
    const std::int8_t value = detail::base64_values[static_cast<unsigned char>(text[i])];
    require(value >= 0, "its character ", i, " is no digit of Base64");
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    // Six bits a digit: bytes are complete behind the second, the third and the fourth of four.
    const auto behind = static_cast<unsigned>(i % 4);
    if (behind != 0) bytes.push_back(static_cast<std::byte>(bits >> (6 - 2 * behind) & 0xff));
  }
  const std::uint32_t unused = padding == 0 ? 0 : (padding == 1 ? 0x3u : 0xfu);
  require((bits & unused) == 0, "its last digit has bits that belong to no byte");
  return bytes;
}

}  // namespace corematching::io

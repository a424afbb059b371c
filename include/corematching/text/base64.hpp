// SPDX-License-Identifier: Apache-2.0
// Bytes from base64 (RFC 4648).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "corematching/core/error.hpp"

namespace corematching::text::detail {

/// Throws `error`, starting with `where`, for what is no base64.
inline std::string from_base64(std::string_view text, const std::string& where) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t digit = digits.find(text[i]);
    require(digit != digits.npos, where, ": not base64 at character ", i);
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xff);
  }
  return bytes;
}

}  // namespace corematching::text::detail

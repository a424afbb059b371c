// SPDX-License-Identifier: Apache-2.0
// The tokens that SentencePiece has for single bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

/// The ids of <0x00> to <0xFF>, which stand for single bytes; `no_token` where one is missing.
class byte_tokens {
 public:
  explicit byte_tokens(const vocabulary& words) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string token = "<0x00>";
    for (std::size_t byte = 0; byte < ids_.size(); ++byte) {
      token[3] = digits[byte >> 4];
      token[4] = digits[byte & 15];
      ids_[byte] = words.find(token);
    }
  }

  /// Appends an id for each byte; does nothing and says false where one of them has none.
  bool append(std::string_view bytes, std::vector<token_id>& ids) const {
    const auto id_of = [&](char byte) { return ids_[static_cast<unsigned char>(byte)]; };
    if (std::ranges::any_of(bytes, [&](char byte) { return id_of(byte) == no_token; })) return false;
    for (const char byte : bytes) ids.push_back(id_of(byte));
    return true;
  }

 private:
  std::array<token_id, 256> ids_{};
};

/// The byte that `token` stands for as <0x41> or <0x4a>; -1 if it stands for none.
inline int byte_of_token(std::string_view token) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace corematching::text

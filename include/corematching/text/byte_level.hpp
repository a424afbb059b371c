// SPDX-License-Identifier: Apache-2.0
// GPT-2's alphabet of bytes: a vocabulary of printable characters for texts of any bytes. Printable bytes of
// Latin-1 stand for themselves, the others, in order, for U+0100 and what follows.
// Source: https://github.com/openai/gpt-2 (src/encoder.py, bytes_to_unicode).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "corematching/text/utf8.hpp"

namespace corematching::text {

namespace detail {

struct byte_alphabet {
  std::array<char16_t, 256> character_of{};
  std::array<std::int16_t, 0x144> byte_of{};  // -1: of none

  constexpr byte_alphabet() {
    byte_of.fill(-1);
    char16_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
      const char16_t character = printable ? static_cast<char16_t>(byte) : next++;
      character_of[static_cast<std::size_t>(byte)] = character;
      byte_of[character] = static_cast<std::int16_t>(byte);
    }
  }
};

inline constexpr byte_alphabet alphabet;

}  // namespace detail

/// One character for each byte.
inline std::string to_byte_level(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 2);
  for (const char byte : bytes)
    append_character(text, detail::alphabet.character_of[static_cast<unsigned char>(byte)]);
  return text;
}

/// The bytes that the characters stand for; `text` itself where one of them stands for none.
inline std::string from_byte_level(std::string_view text) {
  std::string bytes;
  bool known = true;
  for_each_character(text, [&](char32_t code, std::string_view) {
    known = known && code < detail::alphabet.byte_of.size() && detail::alphabet.byte_of[code] >= 0;
    if (known) bytes += static_cast<char>(detail::alphabet.byte_of[code]);
  });
  return known ? bytes : std::string(text);
}

}  // namespace corematching::text

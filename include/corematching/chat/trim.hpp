// SPDX-License-Identifier: Apache-2.0
// Blanks as Python's str.strip() knows them, since that is what Jinja's `trim` calls: the white space of
// Unicode in UTF-8, and the four separators of ASCII.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace corematching::chat {

namespace detail {

// U+0085, U+00A0; U+1680, U+2028, U+2029, U+202F, U+205F, U+3000
inline constexpr std::array<std::string_view, 8> blank_characters{
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

constexpr bool is_blank(std::string_view character) {
  if (character.size() == 1) {
    const char c = character[0];
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1C' && c <= '\x1F');
  }
  const auto last = static_cast<unsigned char>(character.back());
  if (character.size() == 3 && character.starts_with("\xE2\x80") && last >= 0x80 && last <= 0x8A)
    return true;  // U+2000 to U+200A
  return std::ranges::find(blank_characters, character) != blank_characters.end();
}

}  // namespace detail

/// `text` without the blanks in front.
constexpr std::string_view trimmed_front(std::string_view text) {
  for (std::size_t length = 1; length <= 3 && length <= text.size();) {
    const bool blank = detail::is_blank(text.substr(0, length));
    if (blank) text.remove_prefix(length);
    length = blank ? 1 : length + 1;
  }
  return text;
}

/// `text` without the blanks at the end.
constexpr std::string_view trimmed_back(std::string_view text) {
  for (std::size_t length = 1; length <= 3 && length <= text.size();) {
    const bool blank = detail::is_blank(text.substr(text.size() - length));
    if (blank) text.remove_suffix(length);
    length = blank ? 1 : length + 1;
  }
  return text;
}

}  // namespace corematching::chat

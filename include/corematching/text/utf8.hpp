// SPDX-License-Identifier: Apache-2.0
// UTF-8, well-formed as in table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing
// beyond U+10FFFF. Text is repaired once, where it enters; everything behind that relies on whole characters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace corematching::text {

inline constexpr std::string_view replacement_character = "\xef\xbf\xbd";  // U+FFFD

enum class utf8_state { whole, broken, unfinished };

/// What stands at the front of some bytes: a character, the longest part of one that something else breaks
/// off (a "maximal subpart", at least one byte), or one that the end of the bytes cuts off.
struct utf8_front {
  utf8_state state;
  std::size_t length;
};

/// `bytes` must not be empty.
inline utf8_front front_of(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return {utf8_state::whole, 1};
  if (first < 0xc2 || first > 0xf4) return {utf8_state::broken, 1};
  const std::size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  // The second byte is where overlong forms, surrogates and what lies beyond U+10FFFF show.
  const unsigned char least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned char most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {utf8_state::unfinished, i};
    const bool fits = i == 1 ? at(i) >= least && at(i) <= most : (at(i) & 0xc0) == 0x80;
    if (!fits) return {utf8_state::broken, i};
  }
  return {utf8_state::whole, length};
}

/// `bytes` with each maximal subpart that is no character as one U+FFFD, which is what Rust's from_utf8_lossy
/// makes of them.
inline std::string repaired(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const utf8_front front = front_of(bytes);
    text += front.state == utf8_state::whole ? bytes.substr(0, front.length) : replacement_character;
    bytes.remove_prefix(front.length);
  }
  return text;
}

inline bool is_whole(std::string_view bytes) {
  while (!bytes.empty()) {
    const utf8_front front = front_of(bytes);
    if (front.state != utf8_state::whole) return false;
    bytes.remove_prefix(front.length);
  }
  return true;
}

/// A character and how many bytes it has.
struct character {
  char32_t code;
  std::size_t length;
};

/// The first character of `text`, which is well-formed and not empty.
inline character first_character(std::string_view text) {
  const auto at = [&](std::size_t i) { return char32_t{static_cast<unsigned char>(text[i])}; };
  const char32_t first = at(0);
  if (first < 0x80) return {first, 1};
  const auto low = [&](std::size_t i) { return at(i) & 0x3f; };
  if (first < 0xe0) return {(first & 0x1f) << 6 | low(1), 2};
  if (first < 0xf0) return {(first & 0x0f) << 12 | low(1) << 6 | low(2), 3};
  return {(first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4};
}

/// The last character of `text`, which is well-formed and not empty.
inline character last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return first_character(text.substr(begin));
}

inline void append_character(std::string& text, char32_t code) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) return add(code);
  if (code < 0x800) {
    add(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    add(0xe0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3f));
  } else {
    add(0xf0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3f));
    add(0x80 | (code >> 6 & 0x3f));
  }
  add(0x80 | (code & 0x3f));
}

/// Calls `use(code, bytes)` for each character of well-formed text.
template <class Use>
void for_each_character(std::string_view text, Use&& use) {
  while (!text.empty()) {
    const character c = first_character(text);
    use(c.code, text.substr(0, c.length));
    text.remove_prefix(c.length);
  }
}

}  // namespace corematching::text

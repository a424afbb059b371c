// SPDX-License-Identifier: Apache-2.0
// Properties of characters, normal forms and grapheme clusters, from utf8proc's tables. The properties are
// those that Rust's standard library and its regex crate have under these names, since tokenizer files were
// written with them.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

inline utf8proc_category_t category_of(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

/// White_Space.
inline bool is_white_space(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
         code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/// General category L.
inline bool is_letter(char32_t code) {
  if (code < 0x80) return (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

/// General category N.
inline bool is_number(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

/// General category M.
inline bool is_mark(char32_t code) {
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

/// General category P, or one of ASCII's other signs, which Unicode counts among the symbols.
inline bool is_punctuation(char32_t code) {
  if (code < 0x80)
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
           (code >= '{' && code <= '~');
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/// General category C, unassigned characters left out.
inline bool is_control(char32_t code) {
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_CC && category <= UTF8PROC_CATEGORY_CO;
}

/// What \w matches (UTS #18): alphabetic characters, marks, decimal digits, connectors, joiners. Alphabetic
/// is more than the letters: letter numbers, and the circled and squared letters, which are symbols.
inline bool is_word(char32_t code) {
  const auto category = category_of(code);
  if (is_letter(code) || is_mark(code)) return true;
  if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
      category == UTF8PROC_CATEGORY_PC)
    return true;
  const auto within = [&](char32_t first, char32_t last) { return code >= first && code <= last; };
  return within(0x200c, 0x200d) || within(0x24b6, 0x24e9) || within(0x1f130, 0x1f149) ||
         within(0x1f150, 0x1f169) || within(0x1f170, 0x1f189);
}

enum class normal_form { nfc, nfd, nfkc, nfkd };

namespace detail {

/// The characters of `text` taken apart, marks in a row sorted by their classes. utf8proc would do so, too,
/// in steps of one place: 100 KB of marks would take it some ten seconds, and four megabytes hours.
inline std::vector<utf8proc_int32_t> decomposed(std::string_view text, utf8proc_option_t how) {
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for_each_character(text, [&](char32_t code, std::string_view) {
    std::array<utf8proc_int32_t, 32> parts;  // of which U+FDFA fills 18
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts.data(),
                                               std::ssize(parts), how, &boundary);
    require(count >= 0 && count <= std::ssize(parts),
            "a character has no normal form: ", utf8proc_errmsg(count));
    codes.insert(codes.end(), parts.begin(), parts.begin() + count);
  });
  const auto class_of = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  const auto is_sorted_in = [&](utf8proc_int32_t code) { return class_of(code) != 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if(begin, codes.end(), is_sorted_in);
    const auto end = std::find_if_not(begin, codes.end(), is_sorted_in);
    std::ranges::stable_sort(begin, end, {}, class_of);
    begin = end;
  }
  return codes;
}

inline std::string whole_normalized_to(normal_form form, std::string_view text) {
  int options = UTF8PROC_STABLE;
  options |= form == normal_form::nfc || form == normal_form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == normal_form::nfkc || form == normal_form::nfkd) options |= UTF8PROC_COMPAT;
  const auto how = static_cast<utf8proc_option_t>(options);
  std::vector<utf8proc_int32_t> codes = decomposed(text, how);
  const auto length = utf8proc_normalize_utf32(codes.data(), std::ssize(codes), how);
  require(length >= 0, "a text of ", text.size(), " bytes has no normal form: ", utf8proc_errmsg(length));
  codes.resize(static_cast<std::size_t>(length));
  std::string result;
  for (const utf8proc_int32_t code : codes) append_character(result, static_cast<char32_t>(code));
  return result;
}

}  // namespace detail

/// A normal form of well-formed text (UAX #15). ASCII is in each of them, and never joins what precedes it,
/// so only other characters and the one before them need the tables.
inline std::string normalized_to(normal_form form, std::string_view text) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto other = std::ranges::find_if_not(text, is_ascii);
    if (other == text.end()) return result.append(text);
    const auto before = static_cast<std::size_t>(other - text.begin());
    result.append(text.substr(0, before - std::min<std::size_t>(before, 1)));
    text.remove_prefix(before - std::min<std::size_t>(before, 1));
    const auto next = std::ranges::find_if(text.substr(1), is_ascii);
    const auto length = static_cast<std::size_t>(next - text.begin());
    result += detail::whole_normalized_to(form, text.substr(0, length));
    text.remove_prefix(length);
  }
  return result;
}

/// Each character in lower case on its own: a sigma at the end of a word is like any other.
inline std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for_each_character(text, [&](char32_t code, std::string_view) {
    if (code == 0x130) {  // the one character whose lower case is two, i and a dot above
      lower += "i\xcc\x87";
    } else {
      append_character(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
    }
  });
  return lower;
}

/// Calls `use(cluster)` for each extended grapheme cluster (UAX #29) of well-formed text.
template <class Use>
void for_each_grapheme(std::string_view text, Use&& use) {
  std::size_t begin = 0, end = 0;
  utf8proc_int32_t previous = 0, state = 0;
  for_each_character(text, [&](char32_t code, std::string_view bytes) {
    const auto next = static_cast<utf8proc_int32_t>(code);
    if (end > begin && utf8proc_grapheme_break_stateful(previous, next, &state)) {
      use(text.substr(begin, end - begin));
      begin = end;
    }
    previous = next;
    end += bytes.size();
  });
  if (end > begin) use(text.substr(begin));
}

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// The expressions of GPT-2, LLaMA-3 and Qwen2 as code: they cut most of the texts that are tokenized at all,
// and an engine for any expression takes longer for that than everything else does. Each expression matches
// anywhere, so its matches cover a text without a gap.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "corematching/text/unicode.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

inline constexpr std::string_view gpt2_expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view llama3_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class known_split { gpt2, llama3, qwen2 };

/// The one whose expression is exactly this.
inline std::optional<known_split> known_split_of(std::string_view expression) {
  if (expression == gpt2_expression) return known_split::gpt2;
  if (expression == llama3_expression) return known_split::llama3;
  if (expression == qwen2_expression) return known_split::qwen2;
  return std::nullopt;
}

namespace detail {

enum class split_class : unsigned char { letter, number, space, other };

inline split_class split_class_of(char32_t code) {
  if (is_letter(code)) return split_class::letter;
  if (is_white_space(code)) return split_class::space;
  return is_number(code) ? split_class::number : split_class::other;
}

struct split_character {
  split_class kind;
  std::size_t length;
};

inline split_character split_character_at(std::string_view text, std::size_t at) {
  const character c = first_character(text.substr(at));
  return {split_class_of(c.code), c.length};
}

/// Where the run of characters of `kind` that begins at `at` ends, after at most `most` of them.
inline std::size_t end_of_run(std::string_view text, std::size_t at, split_class kind,
                              std::size_t most = std::string_view::npos) {
  for (; at < text.size() && most > 0; --most) {
    const split_character c = split_character_at(text, at);
    if (c.kind != kind) break;
    at += c.length;
  }
  return at;
}

/// \s+(?!\S)|\s+ on a run of white space: all of it at the end of the text; otherwise all but its last
/// character, which what follows may take, unless it is the only one.
inline std::size_t end_of_space(std::string_view text, std::size_t end) {
  if (end == text.size()) return end;
  const std::size_t last = end - last_character(text.substr(0, end)).length;
  return last == 0 ? end : last;
}

/// 's, 't, 'm, 'd, 're, 've and 'll at the front; 0 where there is none. Without case, as Unicode folds it,
/// the long s is an s.
inline std::size_t contraction(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  if (any_case && text.substr(1).starts_with("\xc5\xbf")) return 3;
  const auto at = [&](std::size_t i) {
    return static_cast<char>(any_case && text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
  };
  const char first = at(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (text.size() < 3) return 0;
  const char second = at(2);
  return (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')
             ? 3
             : 0;
}

inline std::size_t gpt2_match(std::string_view text) {
  if (const std::size_t length = contraction(text, false)) return length;
  split_character first = split_character_at(text, 0);
  std::size_t begin = 0;
  if (text[0] == ' ' && text.size() > 1) {
    const split_character second = split_character_at(text, 1);
    if (second.kind != split_class::space) {
      begin = 1;
      first = second;
    }
  }
  const std::size_t end = end_of_run(text, begin + first.length, first.kind);
  return first.kind == split_class::space ? end_of_space(text, end) : end;
}

/// [\r\n]* from `at` on.
inline std::size_t end_of_line_ends(std::string_view text, std::size_t at) {
  const std::size_t end = text.find_first_not_of("\r\n", at);
  return end == text.npos ? text.size() : end;
}

inline std::size_t llama3_match(std::string_view text, std::size_t most_digits) {
  if (const std::size_t length = contraction(text, true)) return length;
  const split_character first = split_character_at(text, 0);
  if (first.kind == split_class::letter) return end_of_run(text, first.length, split_class::letter);
  if (first.kind == split_class::number)
    return end_of_run(text, first.length, split_class::number, most_digits - 1);
  const bool line_end = text[0] == '\r' || text[0] == '\n';
  if (first.length < text.size()) {
    const split_character second = split_character_at(text, first.length);
    if (!line_end && second.kind == split_class::letter)
      return end_of_run(text, first.length, split_class::letter);
    if (text[0] == ' ' && second.kind == split_class::other)
      return end_of_line_ends(text, end_of_run(text, first.length, split_class::other));
  }
  if (first.kind == split_class::other)
    return end_of_line_ends(text, end_of_run(text, first.length, split_class::other));
  const std::size_t end = end_of_run(text, first.length, split_class::space);
  const std::size_t last_line_end = text.substr(0, end).find_last_of("\r\n");
  return last_line_end == text.npos ? end_of_space(text, end) : last_line_end + 1;
}

}  // namespace detail

/// The length in bytes of the match at the front of well-formed `text`, which is not empty.
inline std::size_t match_length(known_split split, std::string_view text) {
  switch (split) {
    case known_split::gpt2: return detail::gpt2_match(text);
    case known_split::llama3: return detail::llama3_match(text, 3);
    case known_split::qwen2: break;
  }
  return detail::llama3_match(text, 1);
}

}  // namespace corematching::text

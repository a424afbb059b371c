// SPDX-License-Identifier: Apache-2.0
// What becomes of a text that a pattern has cut into matches and the rest: the five behaviours that tokenizer
// files name.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "corematching/text/utf8.hpp"

namespace corematching::text {

/// A part of a text, in bytes, and whether the pattern matched it. Pieces follow each other without a gap.
struct piece {
  std::size_t begin;
  std::size_t end;
  bool matched;
};

enum class split_behaviour { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Cuts well-formed `text` at the characters of which `matches(code)` holds, each a match of its own.
template <class Matches>
std::vector<piece> split_at_characters(std::string_view text, Matches&& matches) {
  std::vector<piece> pieces;
  std::size_t begin = 0, at = 0;
  for_each_character(text, [&](char32_t code, std::string_view bytes) {
    if (matches(code)) {
      if (begin < at) pieces.push_back({begin, at, false});
      pieces.push_back({at, at + bytes.size(), true});
      begin = at + bytes.size();
    }
    at += bytes.size();
  });
  if (begin < at) pieces.push_back({begin, at, false});
  return pieces;
}

/// Cuts `text` at each occurrence of `pattern`, from the left, without overlap.
inline std::vector<piece> split_at_text(std::string_view text, std::string_view pattern) {
  std::vector<piece> pieces;
  std::size_t begin = 0;
  for (std::size_t at = text.find(pattern); !pattern.empty() && at != text.npos;
       at = text.find(pattern, begin)) {
    if (begin < at) pieces.push_back({begin, at, false});
    begin = at + pattern.size();
    pieces.push_back({at, begin, true});
  }
  if (begin < text.size()) pieces.push_back({begin, text.size(), false});
  return pieces;
}

namespace detail {

// A match joins what was kept before it; right behind another match it begins a part of its own.
template <class Join>
std::vector<piece> merged(const std::vector<piece>& pieces, Join&& join) {
  std::vector<piece> result;
  bool after_match = false;
  for (const piece& p : pieces) {
    if (p.matched && !after_match && !result.empty())
      join(result.back(), p);
    else
      result.push_back(p);
    after_match = p.matched;
  }
  return result;
}

}  // namespace detail

/// The parts that stay of `pieces`, in order; `matched` means nothing in them. Some may be empty.
inline std::vector<piece> arranged(std::vector<piece> pieces, split_behaviour behaviour) {
  switch (behaviour) {
    case split_behaviour::isolated: return pieces;
    case split_behaviour::removed:
      std::erase_if(pieces, [](const piece& p) { return p.matched; });
      return pieces;
    case split_behaviour::merged_with_previous:
      return detail::merged(pieces, [](piece& before, const piece& match) { before.end = match.end; });
    case split_behaviour::merged_with_next: {
      std::vector<piece> backwards(pieces.rbegin(), pieces.rend());
      backwards =
          detail::merged(backwards, [](piece& behind, const piece& match) { behind.begin = match.begin; });
      return {backwards.rbegin(), backwards.rend()};
    }
    case split_behaviour::contiguous: break;
  }
  std::vector<piece> runs;
  bool matched = false;
  for (const piece& p : pieces) {
    if (p.matched == matched && !runs.empty())
      runs.back().end = p.end;
    else
      runs.push_back(p);
    matched = p.matched;
  }
  return runs;
}

}  // namespace corematching::text

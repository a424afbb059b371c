// SPDX-License-Identifier: Apache-2.0
// Answers that begin with a thought, taken apart as the templates of models do that think.
#pragma once

#include <string_view>

#include "corematching/chat/format.hpp"

namespace corematching::chat {

/// An answer, and the thought in front of it without the line feeds around it; empty where there is none.
struct thinking_answer {
  std::string_view thought;
  std::string_view answer;
};

namespace detail {

constexpr std::string_view without_line_feeds_in_front(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  return text;
}

constexpr std::string_view without_line_feeds(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return without_line_feeds_in_front(text);
}

}  // namespace detail

/// The answer is what follows the last end of a thought, the thought what its first end closes. A text
/// without an end is all answer.
constexpr thinking_answer taken_apart(std::string_view text, const thought_markup& markup) {
  const auto first_end = text.find(markup.end), last_end = text.rfind(markup.end);
  if (first_end == text.npos) return {{}, text};
  std::string_view thought = text.substr(0, first_end);
  if (const auto begin = thought.rfind(markup.begin); begin != thought.npos)
    thought.remove_prefix(begin + markup.begin.size());
  return {detail::without_line_feeds(thought),
          detail::without_line_feeds_in_front(text.substr(last_end + markup.end.size()))};
}

}  // namespace corematching::chat

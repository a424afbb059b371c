// SPDX-License-Identifier: Apache-2.0
// What distinguishes one chat format from another, as data.
//
// Markup may name what it cannot spell: {bos}, {eos}, {prefix} (see segment.hpp) and {date}, the day of the
// conversation.
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace corematching::chat {

/// What stands around the content of a message.
struct turn_markup {
  std::string_view before{};
  std::string_view after{};
};

/// Where a system text goes.
enum class system_place {
  any_turn,        // a message like others, wherever it stands
  first_turn,      // a message of its own, only in front
  first_question,  // in front, as part of the first question
  last_question,   // the same of the last message, if that is a question
  nowhere,         // refused
};

/// What stands around the thought that an answer begins with. Answers in front of the last question lose
/// theirs; behind it they keep it, and the last of all messages has one, if only an empty one.
struct thought_markup {
  std::string_view begin{};
  std::string_view end{};  // empty: answers are written as they are
};

/// Whose messages lose the blanks around them.
struct trimmed_roles {
  bool system = false;
  bool user = false;
  bool assistant = false;
};

struct chat_format {
  std::string_view name{};
  std::string_view begin{};  // in front of everything
  turn_markup system{};
  turn_markup user{};
  turn_markup assistant{};
  std::string_view prompt{};      // asks for an answer; what `assistant.before` begins with
  std::string_view end{};         // the token that ends an answer
  std::string_view after_text{};  // behind each text of a message
  system_place system_in = system_place::any_turn;
  std::optional<std::string_view> default_system{};  // where a conversation begins without one
  std::string_view system_preamble{};                // in front of the first system text
  trimmed_roles trims{};
  thought_markup thought{};
  bool alternates = false;                       // questions and answers take turns, else it is refused
  std::array<std::string_view, 2> other_ends{};  // tokens that end an answer as well
};

}  // namespace corematching::chat

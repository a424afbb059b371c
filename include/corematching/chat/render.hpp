// SPDX-License-Identifier: Apache-2.0
// From messages to what a model reads: a whole conversation, and what a further turn adds to it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/date.hpp"
#include "corematching/chat/format.hpp"
#include "corematching/chat/message.hpp"
#include "corematching/chat/segment.hpp"
#include "corematching/chat/segment_writer.hpp"
#include "corematching/chat/thought.hpp"
#include "corematching/core/error.hpp"

namespace corematching::chat {

/// Where a message's pictures go.
enum class picture_place {
  in_front,  // of its text, each on a line of its own, as LLaVA was trained and its template writes them
  as_written
};

struct render_options {
  bool prompt = true;  // ask for an answer at the end
  picture_place pictures = picture_place::in_front;
  std::string date = date_today();  // for formats that tell the model
};

/// Whether the token that ends an answer (`chat_format::end`) is already in the cache.
enum class answer_end { missing, read };

namespace detail {

inline bool is_picture(const part& piece) {
  return std::holds_alternative<picture>(piece);
}

// Texts in a row are lines of one text, unless the format has something of its own behind each.
inline void write_texts(segment_writer& out, const chat_format& format, const message& from) {
  bool first = true;
  for (const part& piece : from.content) {
    if (is_picture(piece)) continue;
    if (!first && format.after_text.empty()) out.text("\n");
    out.text(std::get<std::string>(piece));
    out.markup(format.after_text);
    first = false;
  }
}

inline void write_content(segment_writer& out, const chat_format& format, const message& from,
                          picture_place pictures) {
  if (pictures == picture_place::in_front) {
    for (const part& piece : from.content) {
      if (!is_picture(piece)) continue;
      out.picture();
      out.markup("\n");
    }
    return write_texts(out, format, from);
  }
  for (const part& piece : from.content) {
    if (is_picture(piece))
      out.picture();
    else
      out.text(std::get<std::string>(piece));
  }
  out.markup(format.after_text);
}

class conversation_writer {
 public:
  conversation_writer(const chat_format& format, std::span<const message> messages,
                      const render_options& options)
      : format_(format), messages_(messages), options_(options), out_(options.date) {
    for (std::size_t i = 0; i < messages.size(); ++i)
      require(messages[i].from == role::user || std::ranges::none_of(messages[i].content, is_picture),
              name_of_message(i), " holds a picture; pictures are shown by the user");
  }

  std::vector<segment> whole() && {
    const bool told = messages_.front().from == role::system;
    const std::size_t first = told ? 1 : 0;
    require(first < messages_.size(), "there is no message but the system's");
    require(!told || format_.system_in != system_place::nowhere, "the chat format ", format_.name,
            " has no place for a system text");
    check_order(first);
    out_.markup(format_.begin);
    const bool in_question =
        format_.system_in == system_place::first_question || format_.system_in == system_place::last_question;
    if (!in_question) write_first_system(told);
    const std::size_t holder =
        format_.system_in == system_place::first_question ? first : messages_.size() - 1;
    for (std::size_t i = first; i < messages_.size(); ++i)
      write_turn(i, told && in_question && i == holder ? &messages_.front() : nullptr);
    return std::move(*this).ended();
  }

  std::vector<segment> further(answer_end end) && {
    check_order(0);
    const std::string_view close = format_.assistant.after;
    const std::size_t at = close.find(format_.end);
    if (end == answer_end::read)
      out_.markup(at == close.npos ? "" : close.substr(at + format_.end.size()));
    else
      out_.markup(close.empty() ? format_.after_text : close);
    for (std::size_t i = 0; i < messages_.size(); ++i) write_turn(i, nullptr);
    return std::move(*this).ended();
  }

 private:
  std::string name_of_message(std::size_t i) const {
    return "messages[" + std::to_string(i) + "], the " + std::string(name_of(messages_[i].from)) + "'s,";
  }

  void check_order(std::size_t first) const {
    for (std::size_t i = first; i < messages_.size(); ++i) {
      const bool asked = messages_[i].from == role::user;
      require(messages_[i].from != role::system || format_.system_in == system_place::any_turn,
              name_of_message(i), " is not the first: the chat format ", format_.name,
              " takes a system text in front only");
      require(!format_.alternates || asked == ((i - first) % 2 == 0), name_of_message(i),
              " is out of turn: the chat format ", format_.name,
              " takes messages of user and assistant in turns, the user's first");
    }
  }

  void write_first_system(bool told) {
    if (!told && !format_.default_system) return;
    segment_writer text;
    if (told)
      write_content(text, format_, messages_.front(), options_.pictures);
    else
      text.markup(*format_.default_system);
    if (format_.trims.system) text.trim();
    out_.markup(format_.system.before);
    out_.markup(format_.system_preamble);
    out_.segments(std::move(text).take());
    out_.markup(format_.system.after);
  }

  // `told`: the system's message that is part of this one, or null.
  void write_turn(std::size_t i, const message* told) {
    const message& turn = messages_[i];
    const auto [around, trims] = turn_of(turn.from);
    segment_writer content;
    if (told != nullptr && turn.from == role::user) {
      content.markup(format_.system.before);
      write_content(content, format_, *told, options_.pictures);
      content.markup(format_.system.after);
    }
    write_content(content, format_, turn, options_.pictures);
    if (trims) content.trim();
    out_.markup(around.before);
    if (turn.from == role::assistant && !format_.thought.end.empty())
      write_thinking(i, std::move(content).take());
    else
      out_.segments(std::move(content).take());
    out_.markup(around.after);
  }

  // Message i, an answer, whose content is one text or none.
  void write_thinking(std::size_t i, const std::vector<segment>& content) {
    const std::string_view text = content.empty() ? std::string_view() : content.front().text;
    const thinking_answer parts = taken_apart(text, format_.thought);
    const bool is_last = i + 1 == messages_.size();
    if (!answers_last_question(i) || (!is_last && parts.thought.empty())) return out_.text(parts.answer);
    out_.markup(format_.thought.begin);
    out_.markup("\n");
    out_.text(parts.thought);
    out_.markup("\n");
    out_.markup(format_.thought.end);
    out_.markup("\n\n");
    out_.text(without_line_feeds_in_front(parts.answer));
  }

  bool answers_last_question(std::size_t i) const {
    const auto is_question = [](const message& one) { return one.from == role::user; };
    return std::ranges::any_of(messages_.first(i), is_question) &&
           std::ranges::none_of(messages_.subspan(i), is_question);
  }

  std::pair<turn_markup, bool> turn_of(role who) const {
    switch (who) {
      case role::system: return {format_.system, format_.trims.system};
      case role::user: return {format_.user, format_.trims.user};
      case role::assistant: break;
    }
    return {format_.assistant, format_.trims.assistant};
  }

  std::vector<segment> ended() && {
    if (options_.prompt) out_.markup(format_.prompt);
    return std::move(out_).take();
  }

  const chat_format& format_;
  std::span<const message> messages_;
  const render_options& options_;
  segment_writer out_;
};

}  // namespace detail

/// A whole conversation, and the prompt for an answer behind it. The same text as the format's template
/// renders (formats.hpp). Throws where the template refuses: on roles out of turn and on a system text that
/// has no place; also where there is nothing but a system text, and on pictures that are not the user's.
inline std::vector<segment> render(const chat_format& format, std::span<const message> messages,
                                   const render_options& options = {}) {
  require(!messages.empty(), "there are no messages");
  return detail::conversation_writer(format, messages, options).whole();
}

/// What further messages append to a conversation whose last answer is in the cache: what ends that answer,
/// the messages, and the prompt. Together with what is there, it is the text of the whole conversation; but
/// formats that trim answers or leave out thoughts leave what the model wrote as it is, and where a template
/// moves the system text to the newest question (`system_place::last_question`) it stays where it was read.
/// Throws as `render`.
inline std::vector<segment> render_further(const chat_format& format, answer_end end,
                                           std::span<const message> messages,
                                           const render_options& options = {}) {
  require(!messages.empty(), "there are no messages");
  require(messages.front().from != role::assistant, "the answer before messages[0] is there already");
  return detail::conversation_writer(format, messages, options).further(end);
}

/// The tokens that end an answer: the tokenizer's own and those of the format.
inline std::vector<segment> stops_of(const chat_format& format) {
  std::vector<segment> stops{{segment_kind::eos}};
  for (const std::string_view name : {format.end, format.other_ends[0], format.other_ends[1]})
    if (!name.empty() && name != "{eos}") stops.push_back({segment_kind::markup, std::string(name)});
  return stops;
}

}  // namespace corematching::chat

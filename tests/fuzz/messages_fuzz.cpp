// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as a message list: accepted or refused with corematching::error, and what is accepted is
// rendered or refused by every format, with nothing lost and nothing of a message's taken for markup. The
// same bytes are a chat template too, which is recognised or refused.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "corematching/chat/message_list.hpp"
#include "corematching/chat/recognise.hpp"
#include "corematching/chat/render.hpp"
#include "corematching/core/error.hpp"

namespace {

using namespace corematching::chat;

void check(bool holds) {
  if (!holds) std::abort();
}

// A refusal is one line.
template <class Body>
void refuse_or(std::string_view begin, Body&& body) {
  try {
    body();
  } catch (const corematching::error& refused) {
    const std::string text = refused.what();
    check(text.starts_with(begin) && text.find('\n') == std::string::npos);
  }
}

std::size_t pictures_in(const std::vector<message>& messages) {
  std::size_t count = 0;
  for (const message& from : messages)
    count +=
        std::ranges::count_if(from.content, [](const part& p) { return std::holds_alternative<picture>(p); });
  return count;
}

void check_segments(const std::vector<segment>& segments, std::size_t pictures) {
  check(static_cast<std::size_t>(std::ranges::count(segments, segment_kind::picture, &segment::kind)) ==
        pictures);
  for (const segment& piece : segments) {
    const bool has_text = piece.kind == segment_kind::markup || piece.kind == segment_kind::text;
    check(has_text != piece.text.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  refuse_or("input: ", [&] {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    check(recognise(text, "input").format != nullptr);
  });
  refuse_or("input: ", [&] {
    const auto messages = parse_messages(std::as_bytes(std::span(data, size)), "input");
    check(!messages.empty());
    const std::size_t pictures = pictures_in(messages);
    for (const chat_format* format : formats) {
      for (const picture_place place : {picture_place::in_front, picture_place::as_written}) {
        const render_options options{.pictures = place, .date = "05 Dec 2024"};
        refuse_or("", [&] { check_segments(render(*format, messages, options), pictures); });
        refuse_or("", [&] {
          check_segments(render_further(*format, answer_end::missing, messages, options), pictures);
        });
      }
    }
  });
  return 0;
}

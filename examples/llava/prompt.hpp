// SPDX-License-Identifier: Apache-2.0
// From what is asked to the token ids of a prompt: a question becomes a message, the model's chat format
// makes segments of messages, and its tokenizer makes ids of these.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/chat/format.hpp"
#include "corematching/chat/message.hpp"
#include "corematching/chat/render.hpp"
#include "corematching/chat/segment.hpp"
#include "corematching/text/tokenizer.hpp"

namespace corematching::driver {

/// Where the picture stands in a question or in a whole prompt.
inline constexpr std::string_view image_marker = "<image>";

/// Messages, and where the pictures in them go.
struct asked_messages {
  std::vector<chat::message> messages;
  chat::picture_place pictures = chat::picture_place::in_front;
};

/// A question about a picture or none: the picture stands where `<image>` says, else in front of the text.
/// `system` may be empty. Throws on an empty question, on more than one `<image>`, on one without a picture,
/// and on one in the system text.
asked_messages ask(const std::string& question, const std::string& system, bool has_image);

/// A whole prompt as a model reads it: names of special tokens are tokens, `<image>` is the picture. Throws
/// on an empty text and on more than one `<image>`.
std::vector<chat::segment> raw_prompt(const std::string& text);

/// What an answer is behind the prompt that asks for it: its text and what ends it.
std::vector<chat::segment> answer_segments(const chat::chat_format& format, const std::string& answer);

/// The ids of `segments`; `image_token` stands for each picture. Throws where there is a picture and no such
/// token (-1).
std::vector<std::int32_t> encode(const text::tokenizer& source, std::span<const chat::segment> segments,
                                 std::int32_t image_token);

/// Ids from a list such as "1, 3148,1001". Throws on anything but non-negative integers that fit.
std::vector<std::int32_t> parse_ids(std::string_view list);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// Messages from JSON: the list that OpenAI's chat completions take (API reference, "messages"), with the
// parts of type "image" that transformers takes in its stead.
//
//   [{"role": "system", "content": "Be brief."},
//    {"role": "user", "content": [{"type": "text", "text": "What is this?"},
//                                 {"type": "image_url", "image_url": {"url": "photo.jpg"}}]}]
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/chat/message.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/base64.hpp"
#include "corematching/io/json.hpp"

namespace corematching::chat {

namespace detail {

inline picture picture_of_base64(std::string_view text, const io::json_object& in, std::string_view key) {
  if (text.empty()) in.contradict(key, "the picture is empty");
  try {
    return {.bytes = io::decode_base64(text)};
  } catch (const error& problem) {
    in.contradict(key, "not Base64: ", problem.what());
  }
}

// data:[<media type>];base64,<data> (RFC 2397)
inline picture picture_of_data_url(std::string_view url, const io::json_object& in, std::string_view key) {
  const std::size_t comma = url.find(',');
  const std::string_view head = url.substr(0, comma).substr(std::string_view("data:").size());
  if (comma == url.npos || !head.ends_with(";base64")) in.contradict(key, "a data: URL without \";base64,\"");
  const std::string_view type = head.substr(0, head.find(';'));
  if (!type.empty() && !type.starts_with("image/"))
    in.contradict(key, "a data: URL of type ", io::in_quotes(type), ", expected a picture's");
  return picture_of_base64(url.substr(comma + 1), in, key);
}

inline picture picture_of(const io::json_object& in, std::string_view key) {
  const std::string from = in.string(key);
  if (from.starts_with("data:")) return picture_of_data_url(from, in, key);
  if (from.find("://") != from.npos)
    in.contradict(key, io::in_quotes(from), " is not fetched: pictures are read from files and data: URLs");
  if (from.empty() || from.find('\0') != from.npos) in.refuse(key, "a file or a data: URL");
  return {.path = from};
}

inline picture parse_image(const io::json_object& in, std::size_t members) {
  constexpr std::array<std::string_view, 4> sources{"url", "path", "image", "base64"};
  const auto given = std::ranges::count_if(sources, [&](std::string_view key) { return in.has(key); });
  // A part that says no more than that there is a picture leaves it to whoever asks to give one.
  if (given == 0 && members == 1) return {};
  if (given != 1) in.contradict("type", "a picture has one of url, path, image and base64");
  if (in.has("base64")) return picture_of_base64(in.string("base64"), in, "base64");
  return picture_of(in, *std::ranges::find_if(sources, [&](std::string_view key) { return in.has(key); }));
}

inline part parse_part(const io::json& value, const std::string& file, const std::string& key) {
  const io::json_object in(value, file, key);
  const std::string type = in.string("type");
  if (type == "text") return in.string("text");
  if (type == "image_url") return picture_of(in.object("image_url"), "url");
  if (type == "image") return parse_image(in, value.size());
  in.refuse("type", "\"text\", \"image_url\" or \"image\"");
}

inline role parse_role(const io::json_object& in) {
  const std::string name = in.string("role");
  for (const role who : {role::system, role::user, role::assistant})
    if (name == name_of(who)) return who;
  in.refuse("role", "\"system\", \"user\" or \"assistant\"");
}

inline message parse_message(const io::json& value, const std::string& file, const std::string& key) {
  const io::json_object in(value, file, key);
  message parsed{parse_role(in)};
  for (const char* tools : {"tool_calls", "function_call"})
    if (in.has(tools)) in.contradict(tools, "tools are not called here");
  const io::json* content = in.find("content");
  if (content != nullptr && content->is_array()) {
    for (std::size_t i = 0; i < content->size(); ++i)
      parsed.content.push_back(parse_part((*content)[i], file, key + ".content[" + std::to_string(i) + "]"));
  } else {
    if (content == nullptr || !content->is_string()) in.refuse("content", "a string or a list of parts");
    parsed.content.emplace_back(content->get<std::string>());
  }
  return parsed;
}

}  // namespace detail

/// The messages of a list in a JSON document; `file` is its name, for messages. Fields that do not matter
/// here
/// ("name", "detail") are passed over. Throws `error` naming the message and the field for what is no such
/// list, for roles and parts that there are not, for tool calls, and for pictures that are neither a file's
/// name (taken as it is written) nor in the list itself: nothing is fetched.
inline std::vector<message> parse_messages(const io::json& list, const std::string& file) {
  require(list.is_array() && !list.empty(), file, ": expected a list of messages");
  std::vector<message> messages;
  for (std::size_t i = 0; i < list.size(); ++i)
    messages.push_back(detail::parse_message(list[i], file, "messages[" + std::to_string(i) + "]"));
  return messages;
}

/// The same of a JSON file that is such a list.
inline std::vector<message> parse_messages(std::span<const std::byte> text, const std::string& file) {
  return parse_messages(io::parse_json(text, file), file);
}

}  // namespace corematching::chat

// SPDX-License-Identifier: Apache-2.0
// For tests of chat formats: the conversations, and what the template of each format makes of them
// (tools/render_chat_templates.py).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/chat/formats.hpp"
#include "corematching/chat/message.hpp"
#include "corematching/chat/message_list.hpp"
#include "corematching/chat/render.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "support/paths.hpp"

namespace support {

namespace chat = corematching::chat;
using corematching::io::json;

inline json chat_data(const std::string& name) {
  const std::string path = (support::test_directory() / "chat/data" / (name + ".json")).string();
  return corematching::io::parse_json(corematching::io::mapped_file::open(path).bytes(), path);
}

inline std::vector<std::vector<chat::message>> conversations() {
  std::vector<std::vector<chat::message>> all;
  for (const json& messages : chat_data("conversations")) {
    const std::string text = messages.dump();
    all.push_back(chat::parse_messages(std::as_bytes(std::span(text)), "conversations.json"));
  }
  return all;
}

struct rendered_case {
  std::size_t conversation = 0;
  bool prompt = false;
  bool refused = false;
  std::string text{};
};

struct format_reference {
  chat::segment_names names{};
  std::vector<rendered_case> cases{};
};

inline format_reference reference_of(const chat::chat_format& format) {
  const json data = chat_data(std::string(format.name));
  format_reference reference{.names = {.bos = data.at("bos"), .eos = data.at("eos")}};
  for (const json& entry : data.at("cases"))
    reference.cases.push_back({entry.at("conversation"), entry.at("prompt"), entry.contains("refused"),
                               entry.value("text", std::string())});
  return reference;
}

/// The formats that have a template: all but "none".
inline std::vector<const chat::chat_format*> formats_with_template() {
  std::vector<const chat::chat_format*> some;
  for (const chat::chat_format* format : chat::formats)
    if (format != &chat::none) some.push_back(format);
  return some;
}

/// The day of the references.
inline constexpr const char* reference_date = "05 Dec 2024";

}  // namespace support

// SPDX-License-Identifier: Apache-2.0
#include "llava/prompt.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view blank_characters = " \t\n\r\v\f";

std::size_t count_markers(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t i = text.find(image_marker); i != text.npos;
       i = text.find(image_marker, i + image_marker.size()))
    ++count;
  return count;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(blank_characters);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(blank_characters) - first + 1);
}

/// Appends the ids of `text`, in which `<image>` is the picture.
void append(prompt_ids& prompt, const text::tokenizer& source, const std::string& text,
            text::special_tokens how, std::int32_t image_token) {
  const auto add = [&](std::string_view part) {
    const std::vector<std::int32_t> ids = source.encode(part, how, image_marker);
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
  };
  const std::size_t marker = text.find(image_marker);
  if (marker == text.npos) return add(text);
  require(image_token >= 0, "the model has no image token, so it cannot be shown a picture");
  // Where the tokenizer knows the marker, it says what becomes of the text around it.
  const auto before = std::ssize(prompt.ids);
  add(text);
  const std::int32_t known = source.find(image_marker);
  const auto place = std::find(prompt.ids.begin() + before, prompt.ids.end(), known);
  if (known >= 0 && place != prompt.ids.end()) {
    prompt.image_position = place - prompt.ids.begin();
    *place = image_token;
    return;
  }
  prompt.ids.resize(static_cast<std::size_t>(before));
  add(std::string_view(text).substr(0, marker));
  prompt.image_position = std::ssize(prompt.ids);
  prompt.ids.push_back(image_token);
  add(std::string_view(text).substr(marker + image_marker.size()));
}

}  // namespace

std::string prompt_text(const prompt_request& request) {
  require(!trimmed(request.question).empty(), "the prompt is empty");
  const std::size_t markers = count_markers(request.question);
  require(count_markers(request.system) == 0, "the system text contains ", image_marker);
  require(markers <= 1, "the prompt contains ", image_marker, " ", markers,
          " times, but there is one picture");
  require(markers == 0 || request.has_image, "the prompt contains ", image_marker,
          ", but no picture is given");
  const bool in_front = request.has_image && markers == 0;
  const std::string body = (in_front ? std::string(image_marker) + "\n" : "") + request.question;
  const std::string system = request.system.empty() ? "" : request.system + " ";
  return system + (request.format == prompt_format::vicuna ? "USER: " + body + " ASSISTANT:" : body);
}

prompt_ids encode_prompt(const text::tokenizer& source, const prompt_request& request) {
  prompt_ids prompt{source.frame().prefix};
  append(prompt, source, prompt_text(request), text::special_tokens::are_text, request.image_token);
  return prompt;
}

prompt_ids encode_raw_prompt(const text::tokenizer& source, const std::string& text,
                             std::int32_t image_token) {
  require(!text.empty(), "the prompt is empty");
  require(count_markers(text) <= 1, "the prompt contains ", image_marker, " ", count_markers(text),
          " times, but there is one picture");
  prompt_ids prompt;
  append(prompt, source, text, text::special_tokens::are_tokens, image_token);
  return prompt;
}

std::vector<std::int32_t> parse_ids(std::string_view list) {
  require(!trimmed(list).empty(), "the list of token ids is empty");
  std::vector<std::int32_t> ids;
  for (bool more = true; more;) {
    const std::size_t comma = list.find(',');
    const std::string_view item = trimmed(list.substr(0, comma));
    std::int32_t id = -1;
    const auto parsed = std::from_chars(item.data(), item.data() + item.size(), id);
    require(parsed.ec == std::errc() && parsed.ptr == item.data() + item.size() && id >= 0,
            io::in_quotes(item), " in the list of token ids is not a token id");
    ids.push_back(id);
    more = comma != list.npos;
    if (more) list.remove_prefix(comma + 1);
  }
  return ids;
}

}  // namespace corematching::driver

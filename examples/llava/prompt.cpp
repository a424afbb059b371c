// SPDX-License-Identifier: Apache-2.0
#include "llava/prompt.hpp"

#include <algorithm>
#include <charconv>
#include <deque>
#include <utility>

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

/// One text in parts, until it is encoded: what stands next to a special token depends on it.
class encoder {
 public:
  encoder(const text::tokenizer& source, std::int32_t image_token)
      : source_(source), image_token_(image_token), image_known_(source.find(image_marker)) {}

  void add(const chat::segment& piece) {
    switch (piece.kind) {
      case chat::segment_kind::markup: return add_text(piece.text, text::special_tokens::are_tokens);
      case chat::segment_kind::text: return add_text(piece.text, text::special_tokens::are_text);
      case chat::segment_kind::picture: return add_picture();
      case chat::segment_kind::bos: return add_token(source_.frame().bos);
      case chat::segment_kind::eos: return add_token(source_.frame().eos);
      case chat::segment_kind::prefix: break;
    }
    end_text();
    ids_.insert(ids_.end(), source_.frame().prefix.begin(), source_.frame().prefix.end());
  }

  std::vector<std::int32_t> take() && {
    end_text();
    return std::move(ids_);
  }

 private:
  void add_text(std::string_view part, text::special_tokens how) { parts_.push_back({part, how}); }

  // A token that the tokenizer finds in texts is left to it.
  void add_token(std::int32_t id) {
    if (id < 0) return;  // a model without one
    const std::string& content = contents_.emplace_back(source_.content_of(id));
    if (!content.empty()) return add_text(content, text::special_tokens::are_tokens);
    end_text();
    ids_.push_back(id);
  }

  void add_picture() {
    require(image_token_ >= 0, "the model has no image token, so it cannot be shown a picture");
    if (image_known_ >= 0) return add_text(image_marker, text::special_tokens::are_tokens);
    end_text();
    ids_.push_back(image_token_);
  }

  void end_text() {
    std::vector<std::int32_t> ids = source_.encode(parts_);
    parts_.clear();
    if (image_known_ >= 0) std::ranges::replace(ids, image_known_, image_token_);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

  const text::tokenizer& source_;
  std::int32_t image_token_;
  std::int32_t image_known_;  // by this id to the tokenizer, or not at all
  std::vector<std::int32_t> ids_;
  std::vector<text::text_part> parts_;
  std::deque<std::string> contents_;  // which parts_ refers to
};

}  // namespace

asked_messages ask(const std::string& question, const std::string& system, bool has_image) {
  require(!trimmed(question).empty(), "the prompt is empty");
  const std::size_t markers = count_markers(question);
  require(count_markers(system) == 0, "the system text contains ", image_marker);
  require(markers <= 1, "the prompt contains ", image_marker, " ", markers,
          " times, but there is one picture");
  require(markers == 0 || has_image, "the prompt contains ", image_marker, ", but no picture is given");
  asked_messages asked;
  if (!system.empty()) asked.messages.push_back({chat::role::system, {system}});
  chat::message& from_user = asked.messages.emplace_back();
  if (markers == 0) {
    if (has_image) from_user.content.emplace_back(chat::picture{});
    from_user.content.emplace_back(question);
    return asked;
  }
  const std::size_t place = question.find(image_marker);
  from_user.content = {question.substr(0, place), chat::picture{},
                       question.substr(place + image_marker.size())};
  asked.pictures = chat::picture_place::as_written;
  return asked;
}

std::vector<chat::segment> raw_prompt(const std::string& text) {
  require(!text.empty(), "the prompt is empty");
  require(count_markers(text) <= 1, "the prompt contains ", image_marker, " ", count_markers(text),
          " times, but there is one picture");
  const std::size_t place = text.find(image_marker);
  if (place == text.npos) return {{chat::segment_kind::markup, text}};
  return {{chat::segment_kind::markup, text.substr(0, place)},
          {chat::segment_kind::picture},
          {chat::segment_kind::markup, text.substr(place + image_marker.size())}};
}

std::vector<chat::segment> answer_segments(const chat::chat_format& format, const std::string& answer) {
  // The prompt is what a turn of the assistant's begins with.
  const auto rest = std::string(format.assistant.before.substr(format.prompt.size()));
  std::vector<chat::segment> segments{{chat::segment_kind::markup, rest}, {chat::segment_kind::text, answer}};
  if (format.end == "{eos}" || format.end.empty())
    segments.push_back({chat::segment_kind::eos});
  else
    segments.push_back({chat::segment_kind::markup, std::string(format.end)});
  return segments;
}

std::vector<std::int32_t> encode(const text::tokenizer& source, std::span<const chat::segment> segments,
                                 std::int32_t image_token) {
  encoder ids(source, image_token);
  for (const chat::segment& piece : segments) ids.add(piece);
  return std::move(ids).take();
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

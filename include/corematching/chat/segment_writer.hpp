// SPDX-License-Identifier: Apache-2.0
// Collects segments; spells out what a format's markup names.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/chat/segment.hpp"
#include "corematching/chat/trim.hpp"

namespace corematching::chat::detail {

class segment_writer {
 public:
  /// `date` is what {date} in markup stands for.
  explicit segment_writer(std::string_view date = {}) : date_(date) {}

  /// Markup of a format (format.hpp).
  void markup(std::string_view text) {
    constexpr std::array<std::pair<std::string_view, segment_kind>, 3> tokens{
        {{"{bos}", segment_kind::bos}, {"{eos}", segment_kind::eos}, {"{prefix}", segment_kind::prefix}}};
    constexpr std::string_view day = "{date}";
    std::size_t literal = 0;
    for (std::size_t at = text.find('{'); at != text.npos; at = text.find('{', at + 1)) {
      const std::string_view rest = text.substr(at);
      if (rest.starts_with(day)) {
        append(segment_kind::markup, text.substr(literal, at - literal));
        append(segment_kind::markup, date_);
        literal = at + day.size();
      }
      for (const auto& [name, kind] : tokens) {
        if (!rest.starts_with(name)) continue;
        append(segment_kind::markup, text.substr(literal, at - literal));
        segments_.push_back({kind});
        literal = at + name.size();
      }
    }
    append(segment_kind::markup, text.substr(literal));
  }

  void text(std::string_view text) { append(segment_kind::text, text); }

  void picture() { segments_.push_back({segment_kind::picture}); }

  void segments(const std::vector<segment>& more) {
    for (const segment& piece : more) {
      if (piece.text.empty())
        segments_.push_back(piece);
      else
        append(piece.kind, piece.text);
    }
  }

  /// Takes the blanks off both ends of all that was written.
  void trim() {
    while (!segments_.empty() && strip(segments_.front(), trimmed_front(segments_.front().text)))
      segments_.erase(segments_.begin());
    while (!segments_.empty() && strip(segments_.back(), trimmed_back(segments_.back().text)))
      segments_.pop_back();
  }

  std::vector<segment> take() && { return std::move(segments_); }

 private:
  void append(segment_kind kind, std::string_view text) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().kind != kind)
      segments_.push_back({kind, std::string(text)});
    else
      segments_.back().text += text;
  }

  // Whether nothing is left of a piece that had a text.
  static bool strip(segment& piece, std::string_view left) {
    if (piece.text.empty()) return false;
    piece.text = std::string(left);
    return piece.text.empty();
  }

  std::string_view date_;
  std::vector<segment> segments_;
};

}  // namespace corematching::chat::detail

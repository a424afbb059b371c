// SPDX-License-Identifier: Apache-2.0
// Texts that end an answer, found while it arrives in pieces. What may yet become one of them is held back,
// so that nobody is shown the beginning of a text that is no part of the answer. The result does not depend
// on how the answer is cut into pieces: the stop string that is complete first ends it, of two the longer
// one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"

namespace corematching::text {

class stop_strings {
 public:
  /// Throws `error` for an empty text, which would end every answer before it begins.
  explicit stop_strings(std::vector<std::string> stops) : stops_(std::move(stops)) {
    for (const std::string& stop : stops_) require(!stop.empty(), "a stop string is empty");
  }

  /// Whether the answer has ended.
  bool found() const { return found_; }

  /// What of the answer can be shown, now that `piece` has come. Nothing once it has ended.
  std::string push(std::string_view piece) {
    if (found_) return {};
    held_.append(piece);
    const std::string_view::size_type answer = first_stop();
    found_ = answer != std::string::npos;
    const std::size_t ready = found_ ? answer : held_.size() - longest_beginning();
    std::string shown = held_.substr(0, ready);
    held_.erase(0, found_ ? held_.size() : ready);
    return shown;
  }

  /// What was held back, where the answer ends otherwise.
  std::string finish() { return std::exchange(held_, {}); }

 private:
  // Where the stop string begins that is complete first; npos if there is none.
  std::size_t first_stop() const {
    std::size_t begin = std::string::npos, end = std::string::npos;
    for (const std::string& stop : stops_) {
      const std::size_t place = held_.find(stop);
      if (place == std::string::npos) continue;
      const std::size_t place_end = place + stop.size();
      if (end != std::string::npos && (place_end > end || (place_end == end && place > begin))) continue;
      begin = place;
      end = place_end;
    }
    return begin;
  }

  // The length of the longest end of what is held that begins a stop string.
  std::size_t longest_beginning() const {
    std::size_t longest = 0;
    for (const std::string& stop : stops_)
      for (std::size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length)
        if (held_.ends_with(std::string_view(stop).substr(0, length))) longest = length;
    return longest;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// What a tokenizer file writes as a pattern: a text, or a regular expression.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/text/effort.hpp"
#include "corematching/text/known_splits.hpp"
#include "corematching/text/pieces.hpp"
#include "corematching/text/regex.hpp"

namespace corematching::text {

class pattern {
 public:
  static pattern of_text(std::string text, const std::string& where) {
    if (text.empty()) return of_expression("", where);  // which matches between all characters
    pattern result;
    result.text_ = std::move(text);
    return result;
  }

  /// Throws `error`, starting with `where`, for what is no expression.
  static pattern of_expression(std::string expression, const std::string& where) {
    pattern result;
    result.known_ = known_split_of(expression);
    result.expression_ = std::make_shared<const regex>(std::move(expression), where);
    return result;
  }

  /// The expression that is matched by code of its own, if it is one.
  std::optional<known_split> known() const { return known_; }

  /// Matches in well-formed `text` and what lies between them. Throws `error` as `regex::split`.
  std::vector<piece> split(std::string_view text, effort& allowed) const {
    if (known_) return split_by_code(text);
    return expression_ ? expression_->split(text, allowed) : split_at_text(text, text_);
  }

 private:
  pattern() = default;

  std::vector<piece> split_by_code(std::string_view text) const {
    std::vector<piece> pieces;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = begin + match_length(*known_, text.substr(begin));
      pieces.push_back({begin, end, true});
      begin = end;
    }
    return pieces;
  }

  std::string text_;
  std::shared_ptr<const regex> expression_;  // shared by copies: it never changes
  std::optional<known_split> known_;
};

}  // namespace corematching::text

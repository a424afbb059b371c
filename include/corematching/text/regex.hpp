// SPDX-License-Identifier: Apache-2.0
// Regular expressions by Oniguruma, with the syntax and options that the tokenizers library compiles them
// with. Expressions come from files and texts from anybody, so whatever an expression does to a text has a
// bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/oniguruma.hpp"
#include "corematching/text/pieces.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

class regex {
 public:
  static constexpr std::size_t longest_expression = 16384;  // bytes; the longest in use have under a thousand

  /// Throws `error`, starting with `where`, for what is no expression.
  regex(std::string expression, std::string where)
      : expression_(std::move(expression)), where_(std::move(where)) {
    require(expression_.size() <= longest_expression, where_, ": an expression of ", expression_.size(),
            " bytes; at most ", longest_expression, " are compiled");
    initialize();
    OnigRegexType* compiled = nullptr;
    OnigErrorInfo info{};
    const int code = onig_new(&compiled, bytes(expression_), bytes(expression_) + expression_.size(),
                              ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &info);
    require(code == ONIG_NORMAL, where_, ": the expression ", io::in_quotes(expression_),
            " cannot be compiled: ", reason(code, &info));
    compiled_.reset(compiled);
  }

  const std::string& expression() const { return expression_; }

  /// Cuts well-formed `text` into matches and what lies between them; together they are the text. Throws
  /// `error` where the expression takes more steps than are allowed.
  std::vector<piece> split(std::string_view text, effort& allowed) const {
    std::vector<piece> pieces;
    if (text.empty()) return pieces;
    searcher search(*this, text, allowed);
    std::size_t end_of_last = 0;
    bool after_match = false;
    for (std::size_t from = 0; from <= text.size();) {
      const auto found = search(from);
      if (!found) break;
      const auto [begin, end] = *found;
      from = end;
      if (begin == end) {
        // An empty match moves on by a character, and does not count right behind a match.
        from += end < text.size() ? first_character(text.substr(end)).length : 1;
        if (std::exchange(after_match, false)) continue;
      } else {
        after_match = true;
      }
      if (begin > end_of_last) pieces.push_back({end_of_last, begin, false});
      pieces.push_back({begin, end, true});
      end_of_last = end;
    }
    if (end_of_last < text.size()) pieces.push_back({end_of_last, text.size(), false});
    return pieces;
  }

 private:
  struct freer {
    void operator()(OnigRegexType* compiled) const { onig_free(compiled); }
    void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
    void operator()(OnigMatchParam* limits) const { onig_free_match_param(limits); }
  };

  // The searches in one text. Oniguruma counts how often it goes back, and tells only that a limit was
  // passed: a search begins with a small one, and tries again with a larger one if that does not do.
  class searcher {
   public:
    searcher(const regex& expression, std::string_view text, effort& allowed)
        : expression_(&expression),
          text_(text),
          allowed_(&allowed),
          region_(onig_region_new()),
          limits_(onig_new_match_param()) {
      require(region_ && limits_, expression.where_, ": no memory to search with");
    }

    /// The first match that begins at or behind `from`.
    std::optional<std::pair<std::size_t, std::size_t>> operator()(std::size_t from) {
      constexpr std::uint64_t smallest_limit = 256, least_cost = 16;
      std::uint64_t cost = least_cost;
      for (std::uint64_t limit = smallest_limit;; limit *= 2) {
        if (!allowed_->spend(cost)) fail_with("it takes too many steps");
        const int code = search(from, limit);
        if (code >= 0)
          return std::pair{static_cast<std::size_t>(region_->beg[0]),
                           static_cast<std::size_t>(region_->end[0])};
        if (code == ONIG_MISMATCH) return std::nullopt;
        const bool over = code == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER ||
                          code == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER ||
                          code == ONIGERR_MATCH_STACK_LIMIT_OVER;
        if (!over) fail_with(reason(code, nullptr));
        cost = limit;
      }
    }

   private:
    int search(std::size_t from, std::uint64_t limit) {
      onig_initialize_match_param(limits_.get());
      onig_set_retry_limit_in_match_of_match_param(limits_.get(), limit);
      onig_set_retry_limit_in_search_of_match_param(limits_.get(), limit);
      onig_set_match_stack_limit_size_of_match_param(limits_.get(), static_cast<unsigned int>(limit));
      const auto* begin = bytes(text_);
      const auto* end = begin + text_.size();
      return onig_search_with_param(expression_->compiled_.get(), begin, end, begin + from, end,
                                    region_.get(), ONIG_OPTION_NONE, limits_.get());
    }

    [[noreturn]] void fail_with(const std::string& what) const {
      fail(expression_->where_, ": the expression ", io::in_quotes(expression_->expression_),
           " on a text of ", text_.size(), " bytes: ", what);
    }

    const regex* expression_;
    std::string_view text_;
    effort* allowed_;
    std::unique_ptr<OnigRegion, freer> region_;
    std::unique_ptr<OnigMatchParam, freer> limits_;
  };

  static const OnigUChar* bytes(std::string_view text) {
    return reinterpret_cast<const OnigUChar*>(text.data());
  }

  static std::string reason(int code, OnigErrorInfo* info) {
    OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
    const int length = info != nullptr && info->par != nullptr ? onig_error_code_to_str(text, code, info)
                                                               : onig_error_code_to_str(text, code);
    return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(length)};
  }

  // Oniguruma's tables are global, and so is how deep an expression may nest.
  static void initialize() {
    static std::once_flag once;
    std::call_once(once, [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      onig_initialize(encodings, 1);
      onig_set_parse_depth_limit(250);
    });
  }

  std::string expression_;
  std::string where_;  // begins every message
  std::unique_ptr<OnigRegexType, freer> compiled_;
};

}  // namespace corematching::text

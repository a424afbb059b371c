// SPDX-License-Identifier: Apache-2.0
// Tokens that stand outside of a model's vocabulary, or are not to be cut: they are found in a text before
// anything else happens to it. At each place the longest counts, and the search goes on behind it. Source:
// https://github.com/huggingface/tokenizers (tokenizers/src/tokenizer/added_vocabulary.rs).
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/byte_trie.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/normalizer.hpp"
#include "corematching/text/unicode.hpp"
#include "corematching/text/utf8.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

struct added_token {
  std::string content{};
  token_id id = no_token;
  bool special = false;       // left out of decoded text; text where special tokens are
  bool single_word = false;   // found only where no word continues it on either side
  bool strips_left = false;   // takes the white space before it
  bool strips_right = false;  // takes the white space behind it
  bool normalized = true;     // found after the text was normalized, in its normalized form

  bool operator==(const added_token&) const = default;
};

/// Bytes begin..end of a text.
struct text_range {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// Which added tokens are found in a text: all, but for special ones that reach into a range of it where they
/// are text.
struct token_filter {
  std::span<const text_range> literal{};  // ascending, apart from each other

  bool is_literal(std::size_t begin, std::size_t end) const {
    const auto next =
        std::ranges::upper_bound(literal, begin, {}, [](const text_range& range) { return range.end; });
    return next != literal.end() && next->begin < end;
  }
};

class added_tokens {
 public:
  /// Adds a token, or changes the flags of one that is there. Throws `error`, starting with `where`, for an
  /// empty or too long content and for an id out of bounds or taken by another.
  void add(const added_token& token, const std::string& where) {
    require(!token.content.empty(), where, ": the added token ", token.id, " is empty");
    require(token.content.size() <= longest_token, where, ": the added token ", token.id, " has ",
            token.content.size(), " bytes, more than ", longest_token);
    require(token.id >= 0 && token.id <= largest_token_id, where, ": the added token ",
            io::in_quotes(token.content), " has the id ", token.id);
    if (const auto known = by_id_.find(token.id);
        known != by_id_.end() && known->second.content != token.content)
      fail(where, ": token ", token.id, " is ", io::in_quotes(token.content), ", but also ",
           io::in_quotes(known->second.content));
    const token_id known_id = by_content_.try_emplace(token.content, token.id).first->second;
    require(known_id == token.id, where, ": the added token ", io::in_quotes(token.content), " has id ",
            token.id, ", but also ", known_id);
    by_id_.insert_or_assign(token.id, token);
  }

  /// Makes ready to search. `normalize` is what texts pass before the second search.
  void finish(const normalizer& normalize) {
    normalized_.clear();
    as_written_ = written_or_special_ = in_normalized_ = {};
    for (const auto& [id, token] : by_id_) {
      effort allowed(token.content.size());
      std::string form = token.normalized ? normalize(token.content, allowed) : token.content;
      if (!token.normalized) as_written_.insert(token.content, id);
      if (!token.normalized || token.special) written_or_special_.insert(token.content, id);
      if (token.normalized && !form.empty()) in_normalized_.insert(form, id);
      if (form != token.content) normalized_.emplace(id, std::move(form));
    }
  }

  /// The id of an added token, or `no_token`.
  token_id find(std::string_view content) const {
    const auto found = by_content_.find(content);
    return found == by_content_.end() ? no_token : found->second;
  }

  /// The added token with this id, or null.
  const added_token* token(token_id id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &found->second;
  }

  /// What stands for the token between encoding and decoding: its normalized form.
  const std::string& form(const added_token& token) const {
    const auto found = normalized_.find(token.id);
    return found == normalized_.end() ? token.content : found->second;
  }

  const std::map<token_id, added_token>& all() const { return by_id_; }

  /// Cuts `text` at the tokens that are found before it is normalized. Calls `use(part, no_token)` for the
  /// texts between and `use(empty, id)` for the tokens, in order. Where special tokens are text in places,
  /// all special ones are found now: behind a normalizer those places are not known any more.
  template <class Use>
  void cut(std::string_view text, const token_filter& filter, Use&& use) const {
    const bool all = filter.literal.empty();
    cut_at(
        all ? as_written_ : written_or_special_, text,
        [&](const added_token& token, std::size_t begin, std::size_t end) {
          return !token.special || !filter.is_literal(begin, end);
        },
        use);
  }

  /// Cuts a normalized part of that text at the others.
  template <class Use>
  void cut_normalized(std::string_view text, const token_filter& filter, Use&& use) const {
    const bool all = filter.literal.empty();
    cut_at(
        in_normalized_, text,
        [&](const added_token& token, std::size_t, std::size_t) { return all || !token.special; }, use);
  }

 private:
  template <class Counts, class Use>
  void cut_at(const byte_trie& trie, std::string_view text, Counts&& counts, Use&& use) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      if (!trie.begins_with(text[at])) {
        ++at;
        continue;
      }
      std::size_t length = 0;
      token_id id = no_token;
      trie.for_each_prefix(text.substr(at), [&](std::size_t size, token_id found) {
        length = size;
        id = found;
      });
      if (id == no_token) {
        ++at;
        continue;
      }
      const added_token& token = by_id_.find(id)->second;
      std::size_t begin = at, end = at + length;
      at = end;  // also where the token does not count here
      if (!counts(token, begin, end) || (token.single_word && !stands_alone(text, begin, end))) continue;
      if (token.strips_left) begin = std::max(done, begin_of_space(text, begin));
      if (token.strips_right) end = end_of_space(text, end);
      if (done < begin) use(text.substr(done, begin - done), no_token);
      use(std::string_view(), id);
      done = end;
    }
    if (done != text.size()) use(text.substr(done), no_token);
  }

  static bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
    return (begin == 0 || !is_word(last_character(text.substr(0, begin)).code)) &&
           (end == text.size() || !is_word(first_character(text.substr(end)).code));
  }
  static std::size_t begin_of_space(std::string_view text, std::size_t end) {
    while (end > 0) {
      const character c = last_character(text.substr(0, end));
      if (!is_white_space(c.code)) break;
      end -= c.length;
    }
    return end;
  }
  static std::size_t end_of_space(std::string_view text, std::size_t begin) {
    while (begin < text.size()) {
      const character c = first_character(text.substr(begin));
      if (!is_white_space(c.code)) break;
      begin += c.length;
    }
    return begin;
  }

  std::map<token_id, added_token> by_id_;
  std::map<std::string, token_id, std::less<>> by_content_;
  std::map<token_id, std::string> normalized_;  // forms that differ from the content
  byte_trie as_written_;                        // tokens found before a text is normalized
  byte_trie written_or_special_;                // and special ones that are else found later
  byte_trie in_normalized_;                     // tokens found in a normalized text
};

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding: a word begins as its characters, and of all neighbours that the table knows the pair
// with the best rank is merged, the leftmost of equals, until none is left.
//
// Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016); what becomes
// of unknown characters is https://github.com/huggingface/tokenizers (tokenizers/src/models/bpe).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/byte_tokens.hpp"
#include "corematching/text/number_map.hpp"
#include "corematching/text/utf8.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

struct bpe_options {
  std::optional<std::string> unknown{};  // the token for characters without one; without it they are dropped
  std::string continuing_prefix{};       // in front of every character but a word's first
  std::string end_suffix{};              // behind a word's last character
  bool fuse_unknown = false;             // one token for unknown characters in a row
  bool byte_fallback = false;            // tokens of bytes for an unknown character
  bool ignore_merges = false;            // a word that is a token stays one
};

class bpe {
 public:
  struct merge {
    std::uint32_t rank;  // the lowest is merged first
    token_id result;
  };

  /// `where` begins messages about texts that cannot be encoded.
  bpe(vocabulary words, bpe_options options, std::string where)
      : words_(std::move(words)), options_(std::move(options)), bytes_(words_), where_(std::move(where)) {
    if (options_.unknown) unknown_ = words_.find(*options_.unknown);
  }

  const vocabulary& words() const { return words_; }

  void reserve_merges(std::size_t count) { merges_.reserve(count); }

  /// Adds a merge; one of the same pair replaces it. Throws `error`, starting with `where`, if a part or the
  /// result is not in the vocabulary.
  void add_merge(std::string_view left, std::string_view right, std::uint32_t rank,
                 const std::string& where) {
    if (right.size() < options_.continuing_prefix.size())
      fail(where, ": the merge of ", io::in_quotes(left), " and ", io::in_quotes(right), " lacks its prefix");
    const std::string result = std::string(left).append(right.substr(options_.continuing_prefix.size()));
    const auto id_of = [&](std::string_view token) {
      const token_id id = words_.find(token);
      if (id == no_token)
        fail(where, ": the merge of ", io::in_quotes(left), " and ", io::in_quotes(right), " needs ",
             io::in_quotes(token), ", which is not in the vocabulary");
      return id;
    };
    const merge made{rank, id_of(result)};
    merges_.insert(pair_of(id_of(left), id_of(right)), made) = made;
  }

  /// The ids of one word, which is well-formed text. Throws `error` for an unknown character where the
  /// unknown token is not in the vocabulary.
  void append_ids(std::string_view word, std::vector<token_id>& ids) const {
    if (options_.ignore_merges) {
      if (const token_id whole = words_.find(word); whole != no_token) return ids.push_back(whole);
    }
    const std::size_t begin = ids.size();
    append_characters(word, ids);
    merge_all(ids, begin);
  }

 private:
  static std::uint64_t pair_of(token_id left, token_id right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  // A token for each character. Unknown ones that are fused are held back until a known one follows.
  void append_characters(std::string_view word, std::vector<token_id>& ids) const {
    bool unknown_waits = false;
    std::string decorated;
    for (std::size_t begin = 0; begin < word.size();) {
      const std::size_t length = first_character(word.substr(begin)).length;
      std::string_view text = word.substr(begin, length);
      const bool first = begin == 0, last = begin + length == word.size();
      begin += length;
      if ((!first && !options_.continuing_prefix.empty()) || (last && !options_.end_suffix.empty())) {
        decorated = first ? "" : options_.continuing_prefix;
        decorated.append(text).append(last ? options_.end_suffix : "");
        text = decorated;
      }
      if (const token_id id = words_.find(text); id != no_token) {
        if (std::exchange(unknown_waits, false)) ids.push_back(unknown_);
        ids.push_back(id);
      } else if (!(options_.byte_fallback && bytes_.append(text, ids)) && options_.unknown) {
        // GPT-2's files name the empty text, and never need it.
        require(unknown_ != no_token, where_,
                ": the text has a character that is in no token, and the unknown token ",
                io::in_quotes(*options_.unknown), " is not in the vocabulary");
        if (unknown_waits && !options_.fuse_unknown) ids.push_back(unknown_);
        unknown_waits = true;
      }
    }
    if (unknown_waits) ids.push_back(unknown_);
  }

  struct symbol {
    token_id id;
    std::int32_t previous;  // -1: none
    std::int32_t next;
  };
  struct candidate {
    std::uint32_t rank;
    std::int32_t place;  // of its left symbol
    token_id result;
    bool operator>(const candidate& other) const {
      return rank != other.rank ? rank > other.rank : place > other.place;
    }
  };

  // Merges ids[begin..). The candidates lie in a heap, the symbols are a list, so n symbols take n log n
  // steps; a candidate whose symbols have changed since is recognised by what it would make.
  void merge_all(std::vector<token_id>& ids, std::size_t begin) const {
    const std::size_t count = ids.size() - begin;
    if (count < 2) return;
    std::vector<symbol> symbols;
    symbols.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::int32_t>(i);
      symbols.push_back({ids[begin + i], at - 1, i + 1 < count ? at + 1 : -1});
    }
    std::vector<candidate> heap;
    const auto consider = [&](std::int32_t left) {
      const symbol& s = symbols[static_cast<std::size_t>(left)];
      if (s.next < 0) return false;
      const merge* known = merges_.find(pair_of(s.id, symbols[static_cast<std::size_t>(s.next)].id));
      if (known != nullptr) heap.push_back({known->rank, left, known->result});
      return known != nullptr;
    };
    for (std::size_t i = 0; i + 1 < count; ++i) consider(static_cast<std::int32_t>(i));
    std::ranges::make_heap(heap, std::greater<>());
    const auto consider_later = [&](std::int32_t left) {
      if (left >= 0 && consider(left)) std::ranges::push_heap(heap, std::greater<>());
    };
    while (!heap.empty()) {
      std::ranges::pop_heap(heap, std::greater<>());
      const candidate best = heap.back();
      heap.pop_back();
      symbol& left = symbols[static_cast<std::size_t>(best.place)];
      if (left.id == no_token || left.next < 0) continue;
      symbol& right = symbols[static_cast<std::size_t>(left.next)];
      const merge* known = merges_.find(pair_of(left.id, right.id));
      if (known == nullptr || known->result != best.result) continue;
      left.id = best.result;
      left.next = right.next;
      right.id = no_token;  // merged away
      if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.place;
      consider_later(left.previous);
      consider_later(best.place);
    }
    ids.resize(begin);
    for (const symbol& s : symbols)
      if (s.id != no_token) ids.push_back(s.id);
  }

  vocabulary words_;
  bpe_options options_;
  byte_tokens bytes_;
  number_map<merge> merges_;
  token_id unknown_ = no_token;
  std::string where_;
};

}  // namespace corematching::text

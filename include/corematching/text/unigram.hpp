// SPDX-License-Identifier: Apache-2.0
// A unigram language model: of all ways to write a word as tokens the one whose scores (logarithms of
// probabilities) have the largest sum.
//
// Source: Kudo, "Subword Regularization" (2018); the order of ties and what becomes of unknown characters are
// those of https://github.com/huggingface/tokenizers (tokenizers/src/models/unigram).
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/byte_tokens.hpp"
#include "corematching/text/byte_trie.hpp"
#include "corematching/text/utf8.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

class unigram {
 public:
  /// `scores` has one for each id of `words`. `unknown` may be `no_token`; then text with unknown characters
  /// is refused. `where` begins the messages.
  unigram(vocabulary words, std::vector<double> scores, token_id unknown, bool byte_fallback,
          std::string where)
      : words_(std::move(words)),
        scores_(std::move(scores)),
        bytes_(words_),
        unknown_(unknown),
        byte_fallback_(byte_fallback),
        where_(std::move(where)) {
    constexpr double unknown_penalty = 10;
    require(unknown_ < words_.size(), where_, ": unk_id is ", unknown_, " in a vocabulary of ",
            words_.size());
    for (token_id id = 0; id < words_.size(); ++id)
      if (!words_.token(id)->empty()) trie_.insert(*words_.token(id), id);
    const auto least = std::ranges::min_element(scores_);
    unknown_score_ = (least == scores_.end() ? 0.0 : *least) - unknown_penalty;
  }

  const vocabulary& words() const { return words_; }

  /// The ids of one word, which is well-formed text. Throws `error` for an unknown character where there is
  /// no unknown token.
  void append_ids(std::string_view word, std::vector<token_id>& ids) const {
    const std::vector<step> best = best_steps(word);
    std::vector<std::pair<std::size_t, std::size_t>> parts;  // of the text, last first
    bool unknown_follows = false;
    for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
      const bool is_unknown = best[end].id == unknown_;
      if (is_unknown && unknown_follows)
        parts.back().first = best[end].begin;
      else
        parts.emplace_back(best[end].begin, end);
      unknown_follows = is_unknown;
    }
    std::ranges::reverse(parts);
    for (const auto& [begin, end] : parts) append_part(word.substr(begin, end - begin), ids);
  }

 private:
  // How the best way to write the text before some place ends.
  struct step {
    token_id id = no_token;
    double score = 0;  // of all of that text
    std::size_t begin = none;
    static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  };

  std::vector<step> best_steps(std::string_view word) const {
    std::vector<step> best(word.size() + 1);
    for (std::size_t begin = 0; begin < word.size();) {
      const std::size_t length = first_character(word.substr(begin)).length;
      const double score = best[begin].score;
      const auto offer = [&](std::size_t end, token_id id, double sum) {
        if (best[end].begin == step::none || sum > best[end].score) best[end] = {id, sum, begin};
      };
      bool has_character = false;
      trie_.for_each_prefix(word.substr(begin), [&](std::size_t size, token_id id) {
        offer(begin + size, id, scores_[static_cast<std::size_t>(id)] + score);
        has_character = has_character || size == length;
      });
      if (!has_character) {
        require(unknown_ != no_token, where_,
                ": the text has a character that is in no token, and there is no ", "unknown token");
        offer(begin + length, unknown_, unknown_score_ + score);
      }
      begin += length;
    }
    return best;
  }

  // Unknown characters in a row are one text, which may happen to be a token.
  void append_part(std::string_view text, std::vector<token_id>& ids) const {
    if (const token_id id = words_.find(text); id != no_token) return ids.push_back(id);
    if (!(byte_fallback_ && bytes_.append(text, ids))) ids.push_back(unknown_);
  }

  vocabulary words_;
  std::vector<double> scores_;
  byte_trie trie_;
  byte_tokens bytes_;
  token_id unknown_;
  bool byte_fallback_;
  double unknown_score_ = 0;
  std::string where_;
};

}  // namespace corematching::text

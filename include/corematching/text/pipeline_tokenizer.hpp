// SPDX-License-Identifier: Apache-2.0
// A tokenizer as the tokenizers library composes it:
//
//   text -> added tokens -> normalizer -> added tokens in normalized text -> words -> model -> ids
//   ids -> tokens -> decoder -> text
//
// It never changes once it is made, so any number of threads may use one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/text/added_tokens.hpp"
#include "corematching/text/bpe.hpp"
#include "corematching/text/byte_level.hpp"
#include "corematching/text/decoder.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/normalizer.hpp"
#include "corematching/text/pre_tokenizer.hpp"
#include "corematching/text/tokenizer.hpp"
#include "corematching/text/unigram.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

using token_model = std::variant<bpe, unigram>;

inline const vocabulary& words_of(const token_model& model) {
  return std::visit([](const auto& m) -> const vocabulary& { return m.words(); }, model);
}

struct pipeline {
  token_model model;
  added_tokens added{};
  normalizer normalize{};
  pre_tokenizer cut{};
  std::vector<decode::step> decoder{};
};

class pipeline_tokenizer : public tokenizer {
 public:
  pipeline_tokenizer(std::string name, pipeline parts)
      : tokenizer(std::move(name)), parts_(std::move(parts)) {
    parts_.added.finish(parts_.normalize);
    size_ = words_of(parts_.model).size();
    if (!parts_.added.all().empty()) size_ = std::max(size_, parts_.added.all().rbegin()->first + 1);
  }

  std::unique_ptr<detokenizer> detokenize() const override { return std::make_unique<stream>(*this); }

  token_id find(std::string_view content) const override { return parts_.added.find(content); }
  std::string content_of(token_id id) const override {
    const added_token* token = parts_.added.token(id);
    return token == nullptr ? std::string() : token->content;
  }
  token_id size() const override { return size_; }

 protected:
  std::vector<token_id> encode_whole(const std::string& text, const token_filter& filter) const override {
    std::vector<token_id> ids;
    ids.reserve(text.size() / 4);
    word_cache cache(*this);
    effort allowed(text.size());
    bool at_start = true;
    const auto take_words = [&](std::string_view part, token_id id) {
      if (id == no_token)
        parts_.cut(part, at_start, allowed, [&](std::string_view word) { cache.append(word, ids); });
      else
        ids.push_back(id);
      at_start = false;
    };
    parts_.added.cut(text, filter, [&](std::string_view part, token_id id) {
      if (id != no_token) return take_words({}, id);
      if (parts_.normalize.empty()) return parts_.added.cut_normalized(part, filter, take_words);
      parts_.added.cut_normalized(parts_.normalize(part, allowed), filter, take_words);
    });
    return ids;
  }

 private:
  // The ids of the words that one text has had so far.
  class word_cache {
   public:
    explicit word_cache(const pipeline_tokenizer& owner) : owner_(&owner) {}

    void append(std::string_view word, std::vector<token_id>& ids) {
      if (word.size() > longest_word) return owner_->append_ids(word, ids);
      const auto known = words_.find(word);
      if (known != words_.end()) {
        const auto begin = pool_.begin() + static_cast<std::ptrdiff_t>(known->second.begin);
        ids.insert(ids.end(), begin, begin + static_cast<std::ptrdiff_t>(known->second.count));
        return;
      }
      const std::size_t before = ids.size();
      owner_->append_ids(word, ids);
      if (words_.size() == most_words) return;
      words_.emplace(word, range{pool_.size(), ids.size() - before});
      pool_.insert(pool_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
    }

   private:
    static constexpr std::size_t longest_word = 128;  // bytes; longer ones hardly come twice
    static constexpr std::size_t most_words = std::size_t{1} << 18;

    struct range {
      std::size_t begin;
      std::size_t count;
    };
    const pipeline_tokenizer* owner_;
    std::unordered_map<std::string, range, text_hash, std::equal_to<>> words_;
    std::vector<token_id> pool_;
  };

  class stream : public detokenizer {
   public:
    explicit stream(const pipeline_tokenizer& source) : source_(&source), decoding_(source.parts_.decoder) {}

    std::string push(token_id id) override {
      const added_tokens& added = source_->parts_.added;
      if (const added_token* token = added.token(id))
        return token->special ? std::string() : decoding_.push(added.form(*token));
      const std::string* token = words_of(source_->parts_.model).token(id);
      if (token == nullptr) refuse_id(id, source_->size_);
      return decoding_.push(*token);
    }

    std::string finish() override { return decoding_.finish(); }

    std::string bytes_of(token_id id) const override {
      const added_tokens& added = source_->parts_.added;
      if (const added_token* token = added.token(id))
        return token->special ? std::string() : decoding_.bytes_of(added.form(*token));
      const std::string* token = words_of(source_->parts_.model).token(id);
      return token == nullptr ? std::string() : decoding_.bytes_of(*token);
    }

   private:
    const pipeline_tokenizer* source_;
    decoding decoding_;
  };

  void append_ids(std::string_view word, std::vector<token_id>& ids) const {
    std::string mapped;
    if (parts_.cut.leaves_bytes()) word = mapped = to_byte_level(word);
    std::visit([&](const auto& model) { model.append_ids(word, ids); }, parts_.model);
  }

  pipeline parts_;
  token_id size_ = 0;
};

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// What every tokenizer offers, whichever file it was read from.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/added_tokens.hpp"
#include "corematching/text/utf8.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

/// What the contents of special tokens are in a text: text, where it comes from somebody who must not say
/// where a turn ends; tokens, where it is a whole prompt.
enum class special_tokens { are_text, are_tokens };

struct text_part {
  std::string_view text{};
  special_tokens how = special_tokens::are_text;
};

/// Text of ids that arrive one by one. All parts together are what `tokenizer::decode` gives, and each is
/// whole UTF-8: a character whose bytes are in several tokens appears with its last byte. Bytes that make no
/// character appear as U+FFFD.
class detokenizer {
 public:
  virtual ~detokenizer() = default;

  /// The text that `id` completes, often none. Throws `error` for an id outside of the vocabulary.
  virtual std::string push(token_id id) = 0;
  /// What the end of the ids leaves unfinished.
  virtual std::string finish() = 0;
  /// The bytes that `id` would add to the text if it came next, as they are: a part of a character, or bytes
  /// that make none. Empty for a special token, and for an id that is no token.
  virtual std::string bytes_of(token_id id) const = 0;
};

/// What stands around a text, as the tokenizer's files say it.
struct token_frame {
  token_id bos = no_token;
  token_id eos = no_token;
  std::vector<token_id> prefix{};  // begins every prompt
  std::vector<token_id> suffix{};  // ends every text that is encoded whole
};

class tokenizer {
 public:
  virtual ~tokenizer() = default;

  /// Ids of one text in parts that differ in what special tokens are; others may reach over a seam. Without
  /// what `frame` adds. Bytes that are no UTF-8 count as U+FFFD. Throws `error` for what cannot be encoded.
  std::vector<token_id> encode(std::span<const text_part> parts) const {
    std::string text;
    std::vector<text_range> literal;
    for (const text_part& part : parts) {
      constexpr std::size_t longest = std::size_t{1} << 30;
      require(part.text.size() < longest - text.size(), "a text of ", text.size() + part.text.size(),
              " bytes is too long to encode");
      const std::size_t begin = text.size();
      text += repaired(part.text);
      if (part.how == special_tokens::are_text && text.size() > begin)
        literal.push_back({begin, text.size()});
    }
    return encode_whole(text, {literal});
  }
  std::vector<token_id> encode(std::string_view text, special_tokens how) const {
    const text_part whole{text, how};
    return encode({&whole, 1});
  }

  /// Text of `ids` without special tokens. Throws `error` for an id outside of the vocabulary.
  std::string decode(std::span<const token_id> ids) const {
    const auto stream = detokenize();
    std::string text;
    for (const token_id id : ids) text += stream->push(id);
    return text + stream->finish();
  }

  /// For ids that arrive one by one. The tokenizer must outlive it.
  virtual std::unique_ptr<detokenizer> detokenize() const = 0;

  /// The id of an added token, or `no_token`.
  virtual token_id find(std::string_view content) const = 0;
  /// The content of an added token; empty for other ids.
  virtual std::string content_of(token_id id) const = 0;
  /// One more than the largest id.
  virtual token_id size() const = 0;

  /// The file it was read from, and what kind it is.
  const std::string& name() const { return name_; }
  const token_frame& frame() const { return frame_; }
  void set_frame(token_frame frame) { frame_ = std::move(frame); }

 protected:
  explicit tokenizer(std::string name) : name_(std::move(name)) {}
  tokenizer(tokenizer&&) = default;

  /// `text` is well-formed.
  virtual std::vector<token_id> encode_whole(const std::string& text, const token_filter& filter) const = 0;

  [[noreturn]] static void refuse_id(token_id id, token_id size) {
    fail("token id ", id, " is outside of the vocabulary of ", size, " tokens");
  }

 private:
  std::string name_;
  token_frame frame_;
};

}  // namespace corematching::text

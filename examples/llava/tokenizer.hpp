// SPDX-License-Identifier: Apache-2.0
// LLaMA's SentencePiece tokenizer as Hugging Face wraps it (`legacy` behaviour): text is cut at added tokens,
// and each piece between them is encoded on its own, with SentencePiece's dummy space in front. So "USER:
// <image>\n" ends in a lone space before the image and begins with one after it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace corematching::driver {

/// A token outside of SentencePiece's vocabulary, or one of its control tokens.
struct added_token {
  std::int32_t id = 0;
  bool special = true;        // left out of decoded text
  bool strips_left = false;   // takes the white space before it
  bool strips_right = false;  // takes the white space after it
};

class tokenizer {
 public:
  /// Reads tokenizer.model and, where they exist, the added tokens of tokenizer.json, added_tokens.json and
  /// tokenizer_config.json. Throws `error` naming the file.
  static tokenizer open(const std::filesystem::path& directory);

  tokenizer(tokenizer&&) noexcept;
  tokenizer& operator=(tokenizer&&) noexcept;
  ~tokenizer();

  /// Ids of `text`, without a token for its beginning.
  std::vector<std::int32_t> encode(std::string_view text) const;

  /// Text of `ids` without special tokens and without the dummy space. Throws on an id outside of the
  /// vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// What begins every prompt: <s>, or nothing where the tokenizer's configuration says so.
  std::span<const std::int32_t> prefix() const { return prefix_; }
  /// The token that ends an answer, or -1.
  std::int32_t eos() const;
  /// One more than the largest id.
  std::int32_t size() const { return size_; }
  /// The id of an added token, or -1.
  std::int32_t find(std::string_view content) const;

 private:
  friend class detokenizer;
  struct fragment {
    std::string text;      // of one token, spaces as spaces
    bool is_byte = false;  // `text` is one byte of a character
  };

  tokenizer();
  void add(const std::string& content, const added_token& token, const std::string& where);
  void read_added_tokens(const std::filesystem::path& directory);
  fragment fragment_of(std::int32_t id) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  std::map<std::string, added_token, std::less<>> added_;
  std::map<std::int32_t, std::string> added_content_;
  std::vector<std::int32_t> prefix_;
  std::int32_t size_ = 0;
};

/// Text of ids that arrive one by one. What it returns is always whole UTF-8; a character whose bytes are
/// tokens of their own appears with its last byte, and bytes that make no character appear as U+FFFD each.
class detokenizer {
 public:
  /// `source` must outlive the detokenizer.
  explicit detokenizer(const tokenizer& source) : source_(&source) {}

  /// The text that `id` completes, often none. Throws on an id outside of the vocabulary.
  std::string push(std::int32_t id);
  /// What the end of the ids leaves unfinished.
  std::string finish();

 private:
  std::string without_dummy_space(std::string text);

  const tokenizer* source_;
  std::string bytes_;  // of a character that is not complete
  bool started_ = false;
};

}  // namespace corematching::driver

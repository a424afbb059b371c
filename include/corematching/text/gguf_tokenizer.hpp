// SPDX-License-Identifier: Apache-2.0
// The vocabulary inside a GGUF file: `tokenizer.ggml.model` is "llama" (SentencePiece, pieces merged by their
// scores) or "gpt2" (byte-level BPE, cut by what `tokenizer.ggml.pre` names).
//
// Source: https://github.com/ggml-org/llama.cpp (src/llama-vocab.cpp) for the keys and their defaults;
// expressions are those of the models' own files. Where the two differ, as in Qwen2's normal form, the
// model's file decides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/gguf_metadata.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/bpe.hpp"
#include "corematching/text/known_splits.hpp"
#include "corematching/text/pipeline_tokenizer.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

namespace detail {

inline constexpr std::string_view space_symbol = "\xe2\x96\x81";  // U+2581, SentencePiece's space

// The values of tokenizer.ggml.token_type.
enum class gguf_token : std::int64_t { normal = 1, unknown, control, user_defined, unused, byte };

/// Mistral's expression, which has cases: a word may begin in upper case, and does not go on in it.
inline constexpr std::string_view tekken_expression =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// What a name of `tokenizer.ggml.pre` stands for.
struct gguf_cut {
  pre_tokenizer cut;
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // where the file does not say
};

inline gguf_cut gguf_cut_of(std::string_view name, const std::string& file) {
  const auto split = [&](std::string_view expression) {
    return cut::split{pattern::of_expression(std::string(expression), file), split_behaviour::isolated,
                      false};
  };
  const cut::byte_level bytes{false, false}, gpt2{false, true};
  const auto steps = [](auto... step) { return pre_tokenizer(std::vector<cut::step>{std::move(step)...}); };
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3")
    return {.cut = steps(split(llama3_expression), bytes), .ignore_merges = true, .adds_bos = true};
  if (name == "tekken")
    return {.cut = steps(split(tekken_expression), bytes), .ignore_merges = true, .adds_bos = true};
  if (name == "qwen2" || name == "deepseek-r1-qwen")
    return {.cut = steps(split(qwen2_expression), bytes), .nfc = true};
  if (name == "smollm") return {.cut = steps(cut::digits{true}, gpt2)};
  if (name == "gpt-2") return {.cut = steps(gpt2)};
  if (name == "default")
    return {.cut = steps(split(R"([\p{P}\$\+<=>\^~\|]+)"), split(gpt2_expression), split(R"(\p{N}+)"),
                         split("[0-9][0-9][0-9]"), bytes)};
  fail(file, ": the pre-tokenizer ", io::in_quotes(name),
       " is not supported; llama-bpe, tekken, qwen2, smollm, ", "gpt-2 and default are");
}

class gguf_vocabulary {
 public:
  explicit gguf_vocabulary(const io::gguf_metadata& file)
      : file_(file), tokens_(file.texts("tokenizer.ggml.tokens")), types_(types_of(file, tokens_.size())) {}

  const std::vector<std::string_view>& tokens() const { return tokens_; }
  gguf_token type(std::size_t id) const { return static_cast<gguf_token>(types_[id]); }

  vocabulary words() const {
    vocabulary words;
    words.reserve(tokens_.size());
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      require(is_whole(tokens_[id]), file_.file(), ": tokenizer.ggml.tokens[", id, "] is not UTF-8");
      words.add(std::string(tokens_[id]), static_cast<std::int64_t>(id), file_.file());
    }
    return words;
  }

  added_tokens added() const {
    added_tokens added;
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const bool special = type(id) == gguf_token::control || type(id) == gguf_token::unknown;
      if (!tokens_[id].empty() && (special || type(id) == gguf_token::user_defined))
        added.add({.content = std::string(tokens_[id]),
                   .id = static_cast<token_id>(id),
                   .special = special,
                   .normalized = false},
                  file_.file());
    }
    return added;
  }

  token_id named(std::string_view key) const {
    if (!file_.has(key)) return no_token;
    return static_cast<token_id>(file_.integer(key, 0, std::ssize(tokens_) - 1));
  }

  bool flag(std::string_view key, bool fallback) const {
    return file_.has(key) ? file_.boolean(key) : fallback;
  }

  /// `adds_bos`: where the file does not say.
  token_frame frame(bool adds_bos) const {
    token_frame frame{.bos = named("tokenizer.ggml.bos_token_id"),
                      .eos = named("tokenizer.ggml.eos_token_id")};
    if (frame.bos != no_token && flag("tokenizer.ggml.add_bos_token", adds_bos)) frame.prefix = {frame.bos};
    if (frame.eos != no_token && flag("tokenizer.ggml.add_eos_token", false)) frame.suffix = {frame.eos};
    return frame;
  }

 private:
  static std::vector<std::int64_t> types_of(const io::gguf_metadata& file, std::size_t count) {
    constexpr std::string_view key = "tokenizer.ggml.token_type";
    if (!file.has(key))
      return std::vector<std::int64_t>(count, static_cast<std::int64_t>(gguf_token::normal));
    require(file.integers(key).size() == count, file.file(), ": ", key, " has ", file.integers(key).size(),
            " values for ", count, " tokens");
    return file.integers(key);
  }

  const io::gguf_metadata& file_;
  const std::vector<std::string_view>& tokens_;
  std::vector<std::int64_t> types_;
};

/// SentencePiece merges whatever makes a piece, the one with the largest score first; so each way to cut a
/// piece in two is a merge, ranked by the piece's score, and equal scores are one rank.
inline void add_merges_by_score(bpe& model, const gguf_vocabulary& pieces, const std::vector<double>& scores,
                                const std::string& file) {
  std::vector<double> ranks = scores;
  std::ranges::sort(ranks, std::greater<>());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  for (std::size_t id = 0; id < pieces.tokens().size(); ++id) {
    if (pieces.type(id) != gguf_token::normal) continue;
    const std::string_view piece = pieces.tokens()[id];
    const auto rank = std::ranges::lower_bound(ranks, scores[id], std::greater<>()) - ranks.begin();
    for (std::size_t cut = 0; cut < piece.size();) {
      cut += first_character(piece.substr(cut)).length;
      const std::string_view left = piece.substr(0, cut), right = piece.substr(cut);
      if (model.words().find(left) != no_token && model.words().find(right) != no_token)
        model.add_merge(left, right, static_cast<std::uint32_t>(rank), file);
    }
  }
}

inline std::unique_ptr<pipeline_tokenizer> read_gguf_sentencepiece(const io::gguf_metadata& file) {
  const gguf_vocabulary pieces(file);
  const std::vector<double>& scores = file.numbers("tokenizer.ggml.scores");
  require(scores.size() == pieces.tokens().size(), file.file(), ": tokenizer.ggml.scores has ", scores.size(),
          " values for ", pieces.tokens().size(), " tokens");
  require(std::ranges::none_of(scores, [](double score) { return score != score; }), file.file(),
          ": tokenizer.ggml.scores has a value that is no number");
  bpe_options options{.fuse_unknown = true, .byte_fallback = true};
  if (const token_id unknown = pieces.named("tokenizer.ggml.unknown_token_id"); unknown != no_token)
    options.unknown = std::string(pieces.tokens()[static_cast<std::size_t>(unknown)]);
  bpe model(pieces.words(), options, file.file());
  add_merges_by_score(model, pieces, scores, file.file());
  const bool space_in_front = pieces.flag("tokenizer.ggml.add_space_prefix", true);
  const std::string symbol(space_symbol);
  std::vector<normalize::step> normalize;
  if (space_in_front) normalize.push_back(normalize::prepend{symbol});
  normalize.push_back(normalize::replace{pattern::of_text(" ", file.file()), symbol});
  pipeline parts{std::move(model)};
  parts.added = pieces.added();
  parts.normalize = normalizer(std::move(normalize), file.file());
  parts.decoder = {decode::replace{pattern::of_text(symbol, file.file()), " "}, decode::byte_fallback{}};
  if (space_in_front) parts.decoder.push_back(decode::strip{" ", 1, 0, true});
  auto result = std::make_unique<pipeline_tokenizer>(file.file() + " (SentencePiece)", std::move(parts));
  result->set_frame(pieces.frame(true));
  return result;
}

inline std::unique_ptr<pipeline_tokenizer> read_gguf_bpe(const io::gguf_metadata& file) {
  constexpr std::string_view pre = "tokenizer.ggml.pre";
  gguf_cut how = gguf_cut_of(file.has(pre) ? file.text(pre) : "default", file.file());
  const gguf_vocabulary tokens(file);
  bpe model(tokens.words(), {.ignore_merges = how.ignore_merges}, file.file());
  const auto& merges = file.texts("tokenizer.ggml.merges");
  model.reserve_merges(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    // Not from the front: a token may itself begin with a space.
    const std::size_t space = merges[i].find(' ', 1);
    if (space == merges[i].npos)
      fail(file.file(), ": tokenizer.ggml.merges[", i, "] is ", io::in_quotes(merges[i]),
           ", which is not a pair of tokens");
    model.add_merge(merges[i].substr(0, space), merges[i].substr(space + 1), static_cast<std::uint32_t>(i),
                    file.file());
  }
  pipeline parts{std::move(model)};
  parts.added = tokens.added();
  if (how.nfc) parts.normalize = normalizer({normalize::to_form{normal_form::nfc}}, file.file());
  parts.cut = std::move(how.cut);
  parts.decoder = {decode::byte_level{}};
  auto result = std::make_unique<pipeline_tokenizer>(file.file() + " (BPE)", std::move(parts));
  result->set_frame(tokens.frame(how.adds_bos));
  return result;
}

}  // namespace detail

/// Makes a tokenizer of a GGUF file's vocabulary. Throws `error`, starting with the file's path.
inline std::unique_ptr<pipeline_tokenizer> read_gguf_tokenizer(const io::gguf_metadata& file) {
  const std::string_view model = file.text("tokenizer.ggml.model");
  if (model == "llama") return detail::read_gguf_sentencepiece(file);
  if (model == "gpt2") return detail::read_gguf_bpe(file);
  fail(file.file(), ": the tokenizer model ", io::in_quotes(model), " is not supported; llama and gpt2 are");
}

}  // namespace corematching::text

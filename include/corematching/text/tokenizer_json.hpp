// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, the file of the tokenizers library, and what a tokenizer_config.json beside it adds. What
// is not known is refused by its name: a tokenizer that leaves a step out makes other ids, and nobody would
// see it. Source: https://github.com/huggingface/tokenizers (tokenizers/src/tokenizer/serialization.rs),
// https://github.com/huggingface/transformers (src/transformers/tokenization_utils_tokenizers.py).
#pragma once

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/json_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/text/added_tokens.hpp"
#include "corematching/text/decoder_json.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/model_json.hpp"
#include "corematching/text/normalizer_json.hpp"
#include "corematching/text/pipeline_tokenizer.hpp"
#include "corematching/text/post_processor_json.hpp"
#include "corematching/text/pre_tokenizer_json.hpp"

namespace corematching::text {

/// A JSON document and the path that messages name.
struct named_json {
  const io::json& document;
  std::string path;
};

namespace detail {

/// The fields that tokenizer.json's list and tokenizer_config.json's dictionary of added tokens share.
inline added_token read_added_token(const json_part& part) {
  added_token token;
  token.content = part.text("content");
  token.special = part.flag("special", false);
  token.single_word = part.flag("single_word", false);
  token.strips_left = part.flag("lstrip", false);
  token.strips_right = part.flag("rstrip", false);
  token.normalized = part.flag("normalized", !token.special);
  return token;
}

/// Adds one file's tokens as the library does: one that the model has keeps its id, others count on from
/// where the file begins. The ids of the file are what it once came to, and are not read.
class token_adder {
 public:
  token_adder(added_tokens& added, const vocabulary& words) : added_(&added), words_(&words) {
    next_ = static_cast<token_id>(words.count());
    if (!added.all().empty()) next_ = std::max(next_, added.all().rbegin()->first + 1);
  }

  void add(added_token token, const std::string& where) {
    if (token.content.empty()) return;
    token.id = added_->find(token.content);
    if (token.id == no_token) token.id = words_->find(token.content);
    if (token.id == no_token) token.id = next_++;
    added_->add(token, where);
  }

 private:
  added_tokens* added_;
  const vocabulary* words_;
  token_id next_;
};

/// The entries of added_tokens_decoder, by id.
inline std::map<token_id, added_token> read_configured_tokens(const json_part& config) {
  std::map<token_id, added_token> tokens;
  if (!config.has("added_tokens_decoder")) return tokens;
  const json_part entries = config.part("added_tokens_decoder");
  for (const auto& item : config.value("added_tokens_decoder").items()) {
    const std::string& key = item.key();
    token_id id = no_token;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0 || id > largest_token_id)
      fail(config.file(), ": added_tokens_decoder has the key ", io::in_quotes(key),
           ", which is no token id");
    added_token token = read_added_token(entries.part(key));
    token.id = id;
    tokens.emplace(id, std::move(token));
  }
  return tokens;
}

/// The text of a special token that a configuration names, as text or as an object; empty for none.
inline std::string named_token(const json_part& config, const char* key) {
  if (!config.has(key)) return "";
  return config.value(key).is_object() ? config.part(key).text("content") : config.text(key);
}

/// bos and eos, and whether they are put around a text, which a configuration may say otherwise than the
/// file.
inline void configure_frame(token_frame& frame, const added_tokens& added, const vocabulary& words,
                            const json_part& config) {
  const auto id_of = [&](const char* key) {
    const std::string content = named_token(config, key);
    const token_id id = added.find(content);
    return id != no_token ? id : words.find(content);
  };
  frame.bos = id_of("bos_token");
  frame.eos = id_of("eos_token");
  const auto put = [&](const char* key, token_id id, std::vector<token_id>& ids) {
    if (!config.has(key)) return;
    ids.clear();
    if (config.flag(key, false) && id != no_token) ids.push_back(id);
  };
  put("add_bos_token", frame.bos, frame.prefix);
  put("add_eos_token", frame.eos, frame.suffix);
}

}  // namespace detail

/// Makes a tokenizer of a tokenizer.json and, unless null, the tokenizer_config.json of its directory. Throws
/// `error`, starting with the path of the file at fault.
inline std::unique_ptr<pipeline_tokenizer> read_tokenizer_json(const named_json& file,
                                                               const named_json* config) {
  const detail::json_part document(file.document, file.path, "");
  require(document.text_or("version", "1.0") == "1.0", file.path, ": version is ",
          io::in_quotes(document.text_or("version", "")), ", expected 1.0");
  pipeline parts{detail::read_model(document)};
  parts.normalize = detail::read_normalizer(document);
  parts.cut = detail::read_pre_tokenizer(document);
  parts.decoder = detail::read_decoder(document);
  detail::token_adder adder(parts.added, words_of(parts.model));
  if (document.has("added_tokens"))
    document.for_each("added_tokens", [&](const detail::json_part& entry) {
      adder.add(detail::read_added_token(entry), entry.where());
    });
  const detail::surroundings around = detail::read_post_processor(document);
  token_frame frame{.prefix = around.prefix, .suffix = around.suffix};
  if (config != nullptr) {
    const detail::json_part settings(config->document, config->path, "");
    detail::token_adder more(parts.added, words_of(parts.model));
    for (const auto& [id, token] : detail::read_configured_tokens(settings)) more.add(token, config->path);
    detail::configure_frame(frame, parts.added, words_of(parts.model), settings);
  }
  const char* kind = std::holds_alternative<bpe>(parts.model) ? " (BPE)" : " (Unigram)";
  auto result = std::make_unique<pipeline_tokenizer>(file.path + kind, std::move(parts));
  result->set_frame(std::move(frame));
  return result;
}

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// The model of a tokenizer.json: its vocabulary and how words become ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/bpe.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/pipeline_tokenizer.hpp"
#include "corematching/text/unigram.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text::detail {

inline vocabulary read_token_table(const json_part& model) {
  const io::json& table = model.value("vocab");
  if (!table.is_object()) model.fields().refuse("vocab", "an object of tokens and ids");
  vocabulary words;
  words.reserve(table.size());
  const std::string where = model.where() + ".vocab";
  for (const auto& item : table.items()) {
    const io::json& id = item.value();
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > static_cast<std::uint64_t>(largest_token_id))
      fail(where, ": the token ", io::in_quotes(item.key()), " has no id from 0 to ", largest_token_id);
    words.add(item.key(), id.get<std::int64_t>(), where);
  }
  return words;
}

/// "left right", as files before tokenizers 0.20 have it, or ["left", "right"].
inline void add_merge(bpe& result, const io::json& entry, std::uint32_t rank, const std::string& where) {
  if (entry.is_string()) {
    const std::string_view text = entry.get_ref<const std::string&>();
    if (text.starts_with("#version")) return;
    const std::size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      fail(where, ": ", io::in_quotes(text), " is not a pair of tokens");
    return result.add_merge(text.substr(0, space), text.substr(space + 1), rank, where);
  }
  require(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string(), where,
          ": not a pair of tokens");
  result.add_merge(entry[0].get_ref<const std::string&>(), entry[1].get_ref<const std::string&>(), rank,
                   where);
}

inline bpe read_bpe(const json_part& model) {
  require(!model.has("dropout") || model.fields().number("dropout", 0, 1) == 0, model.where(),
          ": a dropout other than 0 makes ids random, which is not supported");
  bpe_options options;
  if (model.has("unk_token")) options.unknown = model.text("unk_token");
  options.continuing_prefix = model.text_or("continuing_subword_prefix", "");
  options.end_suffix = model.text_or("end_of_word_suffix", "");
  options.fuse_unknown = model.flag("fuse_unk", false);
  options.byte_fallback = model.flag("byte_fallback", false);
  options.ignore_merges = model.flag("ignore_merges", false);
  bpe result(read_token_table(model), options, model.where());
  const io::json& merges = model.value("merges");
  if (!merges.is_array()) model.fields().refuse("merges", "a list");
  result.reserve_merges(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i)
    add_merge(result, merges[i], static_cast<std::uint32_t>(i),
              model.where() + ".merges[" + std::to_string(i) + "]");
  return result;
}

inline unigram read_unigram(const json_part& model) {
  const io::json& list = model.value("vocab");
  if (!list.is_array()) model.fields().refuse("vocab", "a list of tokens and scores");
  vocabulary words;
  words.reserve(list.size());
  std::vector<double> scores;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const io::json& entry = list[i];
    require(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number(),
            model.where(), ".vocab[", i, "]: not a token and its score");
    words.add(entry[0].get<std::string>(), static_cast<std::int64_t>(i), model.where() + ".vocab");
    scores.push_back(entry[1].get<double>());
  }
  const token_id unknown = model.has("unk_id")
                               ? static_cast<token_id>(model.fields().integer("unk_id", 0, largest_token_id))
                               : no_token;
  return unigram(std::move(words), std::move(scores), unknown, model.flag("byte_fallback", false),
                 model.where());
}

/// `document` is the whole file.
inline token_model read_model(const json_part& document) {
  const json_part model = document.part("model");
  // Files of 2020 do not name the type.
  const std::string type =
      model.text_or("type", model.has("merges")                                     ? "BPE"
                            : model.has("vocab") && model.value("vocab").is_array() ? "Unigram"
                                                                                    : "");
  if (type == "BPE") return read_bpe(model);
  if (type == "Unigram") return read_unigram(model);
  fail(model.where(), ": the model ", io::in_quotes(type), " is not supported; BPE and Unigram are");
}

}  // namespace corematching::text::detail

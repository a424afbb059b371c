// SPDX-License-Identifier: Apache-2.0
// The pre-tokenizer of a tokenizer.json.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/text/json_part.hpp"
#include "corematching/text/pieces.hpp"
#include "corematching/text/pre_tokenizer.hpp"

namespace corematching::text::detail {

inline split_behaviour read_behaviour(const json_part& part, const char* fallback) {
  const std::string name = fallback == nullptr ? part.text("behavior") : part.text_or("behavior", fallback);
  if (name == "Removed") return split_behaviour::removed;
  if (name == "Isolated") return split_behaviour::isolated;
  if (name == "MergedWithPrevious") return split_behaviour::merged_with_previous;
  if (name == "MergedWithNext") return split_behaviour::merged_with_next;
  if (name == "Contiguous") return split_behaviour::contiguous;
  part.fields().refuse("behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// How a Metaspace, pre-tokenizer or decoder, puts its character in front. Files before tokenizers 0.15 say
/// add_prefix_space, later ones prepend_scheme, some both.
inline cut::prepend_scheme read_prepend_scheme(const json_part& part) {
  const std::string name = part.text_or("prepend_scheme", "always");
  if (name != "always" && name != "first" && name != "never")
    part.fields().refuse("prepend_scheme", "always, first or never");
  if (!part.flag("add_prefix_space", true)) {
    if (part.has("prepend_scheme") && name != "never")
      part.fields().contradict("prepend_scheme", "is ", io::in_quotes(name),
                               ", but add_prefix_space is false");
    return cut::prepend_scheme::never;
  }
  return name == "always"  ? cut::prepend_scheme::always
         : name == "first" ? cut::prepend_scheme::first
                           : cut::prepend_scheme::never;
}

inline void append_pre_tokenizer(std::vector<cut::step>& steps, const json_part& part) {
  const std::string type = part.type();
  if (type == "Sequence") {
    part.for_each("pretokenizers", [&](const json_part& inner) { append_pre_tokenizer(steps, inner); });
  } else if (type == "ByteLevel") {
    steps.push_back(cut::byte_level{part.flag("add_prefix_space", true), part.flag("use_regex", true)});
  } else if (type == "Metaspace") {
    steps.push_back(cut::metaspace{part.read_character("replacement"), read_prepend_scheme(part),
                                   part.flag("split", true)});
  } else if (type == "Split") {
    steps.push_back(
        cut::split{part.read_pattern("pattern"), read_behaviour(part, nullptr), part.flag("invert", false)});
  } else if (type == "Whitespace") {
    steps.push_back(cut::words{});
  } else if (type == "WhitespaceSplit") {
    steps.push_back(cut::white_space{});
  } else if (type == "Digits") {
    steps.push_back(cut::digits{part.flag("individual_digits", false)});
  } else if (type == "Punctuation") {
    steps.push_back(cut::punctuation{read_behaviour(part, "Isolated")});
  } else if (type == "BertPreTokenizer") {
    steps.push_back(cut::white_space{});
    steps.push_back(cut::punctuation{split_behaviour::isolated});
  } else {
    part.refuse_type("pre-tokenizer");
  }
}

/// `document` is the whole file.
inline pre_tokenizer read_pre_tokenizer(const json_part& document) {
  constexpr std::size_t most_steps = 64;  // each may make a text longer
  std::vector<cut::step> steps;
  if (document.has("pre_tokenizer")) append_pre_tokenizer(steps, document.part("pre_tokenizer"));
  std::size_t mappings = 0;
  for (const cut::step& step : steps) mappings += std::holds_alternative<cut::byte_level>(step) ? 1 : 0;
  require(steps.size() <= most_steps && mappings <= 1, document.file(), ": a pre_tokenizer of ", steps.size(),
          " steps, ", mappings, " of them ByteLevel; at most ", most_steps, " and 1 are supported");
  return pre_tokenizer(std::move(steps));
}

}  // namespace corematching::text::detail

// SPDX-License-Identifier: Apache-2.0
// The normalizer of a tokenizer.json.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/base64.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/normalizer.hpp"

namespace corematching::text::detail {

inline void append_bert(std::vector<normalize::step>& steps, const json_part& part) {
  const bool lower = part.flag("lowercase", true);
  if (part.flag("clean_text", true)) steps.push_back(normalize::clean{});
  if (part.flag("handle_chinese_chars", true)) steps.push_back(normalize::spaced_chinese{});
  if (part.flag("strip_accents", lower)) {
    steps.push_back(normalize::to_form{normal_form::nfd});
    steps.push_back(normalize::drop_marks{normalize::dropped_marks::nonspacing});
  }
  if (lower) steps.push_back(normalize::lower{});
}

// SentencePiece's rules of characters, Base64.
inline std::string read_rules(const json_part& part) {
  try {
    const std::vector<std::byte> bytes = io::decode_base64(part.text_or("precompiled_charsmap", ""));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  } catch (const error& problem) {
    fail(part.where(), ": precompiled_charsmap is not Base64: ", problem.what());
  }
}

inline void append_normalizer(std::vector<normalize::step>& steps, const json_part& part) {
  const std::string type = part.type();
  if (type == "Sequence") {
    part.for_each("normalizers", [&](const json_part& inner) { append_normalizer(steps, inner); });
  } else if (type == "NFC") {
    steps.push_back(normalize::to_form{normal_form::nfc});
  } else if (type == "NFD") {
    steps.push_back(normalize::to_form{normal_form::nfd});
  } else if (type == "NFKC") {
    steps.push_back(normalize::to_form{normal_form::nfkc});
  } else if (type == "NFKD") {
    steps.push_back(normalize::to_form{normal_form::nfkd});
  } else if (type == "Lowercase") {
    steps.push_back(normalize::lower{});
  } else if (type == "ByteLevel") {
    steps.push_back(normalize::bytes{});
  } else if (type == "Prepend") {
    steps.push_back(normalize::prepend{part.text("prepend")});
  } else if (type == "Replace") {
    steps.push_back(normalize::replace{part.read_pattern("pattern"), part.text("content")});
  } else if (type == "Strip") {
    steps.push_back(normalize::strip{part.flag("strip_left", true), part.flag("strip_right", true)});
  } else if (type == "StripAccents") {
    steps.push_back(normalize::drop_marks{normalize::dropped_marks::all});
  } else if (type == "Precompiled") {
    const std::string rules = read_rules(part);
    // transformers writes one without rules for models that have none.
    if (!rules.empty())
      steps.push_back(normalize::rules{std::make_shared<const charsmap>(rules, part.where())});
  } else if (type == "Nmt") {
    steps.push_back(normalize::nmt{});
  } else if (type == "BertNormalizer") {
    append_bert(steps, part);
  } else {
    part.refuse_type("normalizer");
  }
}

/// `document` is the whole file.
inline normalizer read_normalizer(const json_part& document) {
  std::vector<normalize::step> steps;
  if (document.has("normalizer")) append_normalizer(steps, document.part("normalizer"));
  return normalizer(std::move(steps), document.file());
}

}  // namespace corematching::text::detail

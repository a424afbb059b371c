// SPDX-License-Identifier: Apache-2.0
// The post-processor of a tokenizer.json: what it puts before and behind a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text::detail {

struct surroundings {
  std::vector<token_id> prefix{};
  std::vector<token_id> suffix{};
};

inline std::vector<token_id> read_template_token(const json_part& special_tokens, const std::string& name) {
  std::vector<token_id> ids;
  constexpr std::size_t most = 64;
  for (const std::int64_t id : special_tokens.part(name).fields().integers("ids", 0, largest_token_id, most))
    ids.push_back(static_cast<token_id>(id));
  return ids;
}

/// [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...] and a table of the tokens' ids.
inline surroundings read_template(const json_part& part) {
  surroundings result;
  bool behind = false;
  part.for_each("single", [&](const json_part& piece) {
    if (piece.has("Sequence")) {
      require(!std::exchange(behind, true) && piece.part("Sequence").text("id") == "A", piece.where(),
              ": the text must stand once in its template");
      return;
    }
    const std::string name = piece.part("SpecialToken").text("id");
    auto& ids = behind ? result.suffix : result.prefix;
    const std::vector<token_id> more = read_template_token(part.part("special_tokens"), name);
    ids.insert(ids.end(), more.begin(), more.end());
  });
  require(behind, part.where(), ".single: the text is not in its template");
  return result;
}

/// ["</s>", 2]
inline token_id read_named_token(const json_part& part, const char* key) {
  const io::json& pair = part.value(key);
  require(pair.is_array() && pair.size() == 2 && pair[1].is_number_unsigned() &&
              pair[1].get<std::uint64_t>() <= static_cast<std::uint64_t>(largest_token_id),
          part.where(), ".", key, ": not a token and its id");
  return static_cast<token_id>(pair[1].get<std::int64_t>());
}

inline surroundings read_post_processor_part(const json_part& part) {
  const std::string type = part.type();
  if (type == "ByteLevel") return {};  // changes offsets, which nobody asks for
  if (type == "TemplateProcessing") return read_template(part);
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return {{read_named_token(part, "cls")}, {read_named_token(part, "sep")}};
  if (type != "Sequence") part.refuse_type("post-processor");
  surroundings result;
  part.for_each("processors", [&](const json_part& inner) {
    const surroundings outer = read_post_processor_part(inner);
    result.prefix.insert(result.prefix.begin(), outer.prefix.begin(), outer.prefix.end());
    result.suffix.insert(result.suffix.end(), outer.suffix.begin(), outer.suffix.end());
  });
  return result;
}

/// `document` is the whole file.
inline surroundings read_post_processor(const json_part& document) {
  return document.has("post_processor") ? read_post_processor_part(document.part("post_processor"))
                                        : surroundings();
}

}  // namespace corematching::text::detail

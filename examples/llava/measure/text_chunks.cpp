// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <string_view>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"
#include "llava/measure/items.hpp"

namespace corematching::driver {
namespace {

multimodal_prompt text_prompt(std::span<const std::int32_t> prefix, std::span<const std::int32_t> ids) {
  multimodal_prompt prompt;
  prompt.ids.assign(prefix.begin(), prefix.end());
  prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
  prompt.kinds.assign(prompt.ids.size(), token_kind::text);
  return prompt;
}

}  // namespace

std::vector<scored_item> text_chunks(std::span<const std::int32_t> ids, std::span<const std::int32_t> prefix,
                                     const chunking& how) {
  const index from_text = how.tokens - std::ssize(prefix), asked = how.prompt_tokens - std::ssize(prefix);
  const index scored = how.tokens - how.prompt_tokens;
  require(how.prompt_tokens > 0 && asked >= 0 && scored > 0, "a chunk of ", how.tokens, " tokens of which ",
          how.prompt_tokens, " are its prompt, and of these ", std::ssize(prefix),
          " begin every text, has nothing to score or to score it behind");
  const index all = std::ssize(ids) / from_text;
  require(all > 0, "the text has ", std::ssize(ids), " tokens, fewer than the ", from_text,
          " of one chunk (--chunk)");
  require(!how.most_tokens || *how.most_tokens >= scored, "--tokens: one chunk scores ", scored,
          ", more than ", how.most_tokens.value_or(0));
  const index count = how.most_tokens ? std::min(all, *how.most_tokens / scored) : all;
  std::vector<scored_item> items;
  for (index i = 0; i < count; ++i) {
    const index place = i * all / count;
    const auto chunk =
        ids.subspan(static_cast<std::size_t>(place * from_text), static_cast<std::size_t>(from_text));
    const auto before = chunk.first(static_cast<std::size_t>(asked));
    const auto behind = chunk.subspan(static_cast<std::size_t>(asked));
    items.push_back({"chunk " + std::to_string(place + 1),
                     text_prompt(prefix, before),
                     {behind.begin(), behind.end()},
                     {}});
  }
  return items;
}

std::vector<scored_item> read_text_chunks(const measure_options& o, const request& model) {
  const index context = model.config.text().context();
  require(o.chunk <= context, "--chunk: ", o.chunk, " tokens do not fit the model's context of ", context);
  const io::mapped_file file = io::mapped_file::open(o.text);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  try {
    const std::vector<std::int32_t> ids = model.words->encode(text, text::special_tokens::are_text);
    std::vector<scored_item> items = text_chunks(
        ids, model.words->frame().prefix, {o.chunk, o.prompt_tokens.value_or(o.chunk / 2), o.most_tokens});
    for (scored_item& item : items) {
      model.config.text().require_known(item.prompt.ids);  // a tokenizer may know more than the model
      model.config.text().require_known(item.scored);
      item.name = o.text.string() + ": " + item.name;
    }
    return items;
  } catch (const error& problem) {
    fail(o.text.string(), ": ", problem.what());
  }
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// How likely tokens were, as the model says before anything is done to its logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "corematching/model/generation/ranked_ids.hpp"
#include "corematching/text/tokenizer.hpp"
#include "llava/serve/answering.hpp"

namespace corematching::driver {

/// Token `id` as what comes next in a text, `words` and `before` (see `chances_of`), its likelihood unknown.
inline likely_token token_behind(const text::tokenizer* words, const text::detokenizer* before,
                                 std::int32_t id) {
  if (words == nullptr || before == nullptr) return {.id = id};
  likely_token token{id, before->bytes_of(id)};
  if (!token.text.empty()) return token;
  token.text = words->content_of(id);
  token.is_in_text = token.text.empty();
  return token;
}

/// Token `id` and the `most` likeliest ones in its place, by the logits that it was chosen from; ids from
/// `ids` on are no tokens. `before` is the text that the token was said behind; both it and its tokenizer are
/// null where there are no texts.
inline said_token chances_of(std::span<const float> logits, index ids, std::int32_t id, index most,
                             const text::tokenizer* words, const text::detokenizer* before) {
  logits = logits.first(static_cast<std::size_t>(std::min<index>(ids, std::ssize(logits))));
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  const double log_sum = largest + std::log(sum);
  const auto token = [&](std::int32_t which) -> likely_token {
    likely_token made = token_behind(words, before, which);
    made.logprob = double{logits[static_cast<std::size_t>(which)]} - log_sum;
    return made;
  };
  said_token said{token(id)};
  corematching::detail::ranked_ids ranked(logits);
  for (index rank = 0; rank < std::min<index>(most, std::ssize(logits)); ++rank)
    said.others.push_back(token(ranked[static_cast<std::size_t>(rank)]));
  return said;
}

}  // namespace corematching::driver

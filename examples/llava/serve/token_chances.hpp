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

/// The text of `id` behind the token `before` (-1: none); of a special token its name.
inline std::string text_of_token(const text::tokenizer* words, std::int32_t before, std::int32_t id) {
  if (words == nullptr || id >= words->size()) return {};
  if (std::string name = words->content_of(id); !name.empty()) return name;
  const auto stream = words->detokenize();
  if (before >= 0) static_cast<void>(stream->push(before));
  std::string text = stream->push(id);
  return text + stream->finish();
}

/// Token `id`, which was said behind `before`, and the `most` likeliest ones in its place, by the logits that
/// it was chosen from; ids from `ids` on are no tokens.
inline said_token chances_of(std::span<const float> logits, index ids, std::int32_t before, std::int32_t id,
                             index most, const text::tokenizer* words) {
  logits = logits.first(static_cast<std::size_t>(std::min<index>(ids, std::ssize(logits))));
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  const double log_sum = largest + std::log(sum);
  const auto token = [&](std::int32_t which) -> likely_token {
    return {which, text_of_token(words, before, which),
            double{logits[static_cast<std::size_t>(which)]} - log_sum};
  };
  said_token said{token(id)};
  corematching::detail::ranked_ids ranked(logits);
  for (index rank = 0; rank < std::min<index>(most, std::ssize(logits)); ++rank)
    said.others.push_back(token(ranked[static_cast<std::size_t>(rank)]));
  return said;
}

}  // namespace corematching::driver

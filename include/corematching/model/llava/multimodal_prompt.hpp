// SPDX-License-Identifier: Apache-2.0
// A prompt whose image tokens are expanded: one entry for each row that the decoder sees.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/model/llama/llama.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

struct multimodal_prompt {
  std::vector<std::int32_t> ids;  // of an image row: the image token's
  std::vector<token_kind> kinds;
  std::vector<index> picture_sizes = {};  // image rows of each picture, in their order

  index size() const { return std::ssize(ids); }
  index image_tokens() const { return std::ranges::count(kinds, token_kind::image); }
};

/// Replaces each `image_token` in `ids` by `tokens_per_image` rows.
inline multimodal_prompt expand_images(std::span<const std::int32_t> ids, std::int32_t image_token,
                                       index tokens_per_image) {
  multimodal_prompt prompt;
  for (const std::int32_t id : ids) {
    const bool image = id == image_token;
    const auto rows = static_cast<std::size_t>(image ? tokens_per_image : 1);
    prompt.ids.insert(prompt.ids.end(), rows, id);
    prompt.kinds.insert(prompt.kinds.end(), rows, image ? token_kind::image : token_kind::text);
    if (image) prompt.picture_sizes.push_back(tokens_per_image);
  }
  return prompt;
}

/// The decoder's input [T, D]: embeddings of text ids; the rows of `image_features`, in their order, for
/// image tokens. Throws `error` where their numbers disagree.
template <backend B>
matrix<B> embed_prompt(B& be, const llama<B>& model, const multimodal_prompt& prompt,
                       matrix_view<const float, typename B::space> image_features) {
  require(prompt.image_tokens() == image_features.rows, "the prompt has ", prompt.image_tokens(),
          " image tokens, but there are features of ", image_features.rows);
  matrix<B> x(be, prompt.size(), model.config().hidden_size);
  index image_row = 0;
  for (index first = 0; first < prompt.size();) {
    const token_kind kind = prompt.kinds[static_cast<std::size_t>(first)];
    const auto end =
        std::find_if(prompt.kinds.begin() + first, prompt.kinds.end(), [&](auto k) { return k != kind; });
    const index count = end - prompt.kinds.begin() - first;
    const auto rows = x.view().middle_rows(first, count);
    if (kind == token_kind::text) {
      model.embed(
          be, rows,
          std::span(prompt.ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    } else {
      be.copy(rows, image_features.middle_rows(image_row, count));
      image_row += count;
    }
    first += count;
  }
  return x;
}

}  // namespace corematching

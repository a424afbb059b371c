// SPDX-License-Identifier: Apache-2.0
// Image tokens that are dropped before the decoder, by their projected features alone: those that are like
// others, or by chance. No layer computes them. It goes together with CoreMatching's dropping in a layer,
// which then has the rest to choose from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/nn/token_kind.hpp"
#include "corematching/nn/transfer.hpp"
#include "corematching/select/core_tokens.hpp"
#include "corematching/select/farthest_first.hpp"
#include "corematching/select/random_scores.hpp"

namespace corematching {

/// Which tokens stay: those least like each other (select/farthest_first.hpp), or chance's.
enum class thinning_criterion : std::uint8_t { duplication, random };

/// As options of programs name it.
constexpr std::string_view name_of(thinning_criterion criterion) {
  return criterion == thinning_criterion::random ? "random" : "duplication";
}

struct thinning_config {
  thinning_criterion criterion = thinning_criterion::duplication;
  select::keep_options keep = {.rule = select::keep_rule::ratio};  // of each picture; top_k or ratio
  std::uint64_t seed = 0;                                          // of `random`

  /// Throws `error` where something is out of range, and for max_distance: farthest-first has an order, but
  /// no scores with an elbow.
  void validate() const {
    require(keep.rule != select::keep_rule::max_distance,
            "max_distance does not say how many tokens stay before the decoder, where there are no scores "
            "with an elbow: top_k and ratio do");
    keep.validate();
  }
};

/// A prompt without the image tokens that were dropped.
template <backend B>
struct thinned_prompt {
  multimodal_prompt prompt;          // the rows that are left
  std::vector<std::int32_t> places;  // where each of them stands in the whole prompt
  matrix<B> image_features;          // of its image tokens
};

namespace detail {

/// Which tokens of one picture stay, ascending, by their features [tokens, D] or original positions.
template <backend B>
std::vector<std::int32_t> thinned_rows(B& be, matrix_view<const float, typename B::space> features,
                                       index_view<> positions, const thinning_config& config) {
  const index tokens = features.rows;
  if (config.criterion == thinning_criterion::random) {
    const auto scores = select::random_scores(config.seed, select::before_all_layers, positions);
    return select::core_tokens(vector_view<const std::int32_t>{scores.data(), tokens}, config.keep);
  }
  matrix<B> products(be, tokens, tokens);
  be.matmul(products.view(), features, features, {});
  std::vector<float> host;
  download_values(be, products.view(), host);
  return select::farthest_first({host.data(), tokens, tokens, tokens},
                                select::kept_count(config.keep, tokens));
}

/// What is left of a prompt of which the image tokens at `dropped`, ascending, are gone.
template <backend B>
void leave_out(thinned_prompt<B>& to, const multimodal_prompt& prompt,
               const std::vector<std::int32_t>& dropped) {
  for (std::int32_t place = 0; place < prompt.size(); ++place) {
    if (std::ranges::binary_search(dropped, place)) continue;
    to.places.push_back(place);
    to.prompt.ids.push_back(prompt.ids[static_cast<std::size_t>(place)]);
    to.prompt.kinds.push_back(prompt.kinds[static_cast<std::size_t>(place)]);
  }
}

}  // namespace detail

/// Drops image tokens of every picture of `prompt`, whose first token stands at position `first` and whose
/// image tokens have the features `image_features` [image tokens, D]. Throws `error` where their numbers
/// disagree, and where features are not finite.
template <backend B>
thinned_prompt<B> thin(B& be, const multimodal_prompt& prompt,
                       matrix_view<const float, typename B::space> image_features, std::int32_t first,
                       const thinning_config& config) {
  config.validate();
  require(prompt.image_tokens() == image_features.rows, "the prompt has ", prompt.image_tokens(),
          " image tokens, but there are features of ", image_features.rows);
  std::vector<std::int32_t> positions;  // of image tokens
  for (std::int32_t place = 0; place < prompt.size(); ++place)
    if (prompt.kinds[static_cast<std::size_t>(place)] == token_kind::image)
      positions.push_back(first + place);

  thinned_prompt<B> thinned;
  std::vector<std::int32_t> kept, dropped;  // rows of image_features, places in the prompt
  index begin = 0;
  for (const index size : prompt.picture_sizes) {
    const auto best = detail::thinned_rows(be, image_features.middle_rows(begin, size),
                                           {positions.data() + begin, size}, config);
    thinned.prompt.picture_sizes.push_back(std::ssize(best));
    for (index row = 0; row < size; ++row) {
      const auto at = static_cast<std::int32_t>(begin + row);
      if (std::ranges::binary_search(best, row))
        kept.push_back(at);
      else
        dropped.push_back(positions[static_cast<std::size_t>(at)] - first);
    }
    begin += size;
  }
  detail::leave_out(thinned, prompt, dropped);
  const auto rows = device_indices(be, {kept.data(), std::ssize(kept)});
  thinned.image_features = matrix<B>(be, std::ssize(kept), image_features.cols);
  be.gather_rows(thinned.image_features.view(), image_features, rows.view());
  return thinned;
}

}  // namespace corematching

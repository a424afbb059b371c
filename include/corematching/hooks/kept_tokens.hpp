// SPDX-License-Identifier: Apache-2.0
// Which image tokens stay by their scores, each picture for itself or all together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "corematching/core/view.hpp"
#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/select/core_tokens.hpp"
#include "corematching/select/score_profile.hpp"

namespace corematching {

/// What was decided among the image tokens of one picture, or among all.
struct token_group {
  index image_tokens = 0;  // that were alive before
  index kept = 0;
  std::optional<select::score_profile> profile = {};  // of their scores
};

namespace detail {

struct scored_row {
  std::int32_t row = 0;
  double score = 0;
};

struct kept_images {
  std::vector<std::int32_t> rows;  // ascending
  std::vector<scored_row> scores;  // of all image tokens, ascending
  std::vector<token_group> groups;
};

/// Those of the rows of each picture that the rule keeps. `scores` has one entry for every row, image or not.
template <class Score>
kept_images keep_best(const std::vector<Score>& scores, std::vector<std::vector<std::int32_t>> pictures,
                      const select::keep_options& keep, kept_among among) {
  if (among == kept_among::all)
    for (; pictures.size() > 1; pictures.pop_back())
      pictures.front().insert(pictures.front().end(), pictures.back().begin(), pictures.back().end());
  kept_images kept;
  for (std::vector<std::int32_t>& rows : pictures) {
    std::ranges::sort(rows);
    std::vector<Score> of_rows;
    for (const std::int32_t row : rows) {
      of_rows.push_back(scores[static_cast<std::size_t>(row)]);
      kept.scores.push_back({row, static_cast<double>(of_rows.back())});
    }
    const std::vector<std::int32_t> best =
        select::core_tokens(vector_view<const Score>{of_rows.data(), std::ssize(of_rows)}, keep);
    for (const std::int32_t place : best) kept.rows.push_back(rows[static_cast<std::size_t>(place)]);
    kept.groups.push_back({std::ssize(rows), std::ssize(best), select::profile_of(of_rows)});
  }
  std::ranges::sort(kept.rows);
  std::ranges::sort(kept.scores, {}, &scored_row::row);
  return kept;
}

}  // namespace detail

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Core tokens (CoreMatching, section on core tokens): the image tokens whose activated neurons have most in
// common with the core neurons of the sentence, m(x) = |Γ(x) ∩ C|. How many is read off the scores
// themselves.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <type_traits>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/max_distance.hpp"

namespace corematching::select {

enum class keep_rule {
  max_distance,  // m(x) >= τ, τ the score at the elbow
  top_k,         // the `count` largest
  ratio          // the max(1, floor(ratio·T)) largest
};

/// Which image tokens stay. Rank is score descending, ties to the lower position.
struct keep_options {
  keep_rule rule = keep_rule::max_distance;
  bool strict = false;                   // max_distance: keep m(x) > τ instead of m(x) >= τ
  index count = 1;                       // top_k
  double ratio = 1.0;                    // ratio, in (0, 1]
  index min_tokens = 1;                  // where the rule keeps fewer, the first min_tokens by rank
  std::optional<index> max_tokens = {};  // where the rule keeps more, the first max_tokens by rank

  /// Throws where an option that the rule reads is out of range.
  void validate() const {
    require(rule != keep_rule::top_k || count >= 1, "top_k keeps at least 1 token, got count = ", count);
    require(rule != keep_rule::ratio || (ratio > 0.0 && ratio <= 1.0), "ratio must lie in (0, 1], got ",
            ratio);
    require(min_tokens >= 1, "min_tokens must be at least 1: the kept set is never empty, got ", min_tokens);
    require(!max_tokens || *max_tokens >= min_tokens,
            "max_tokens must not be below min_tokens = ", min_tokens, ", got ", max_tokens.value_or(0));
  }
};

inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// How many of `tokens` tokens top_k or ratio keep, before min_tokens and max_tokens.
inline index kept_share(const keep_options& options, index tokens) {
  if (options.rule == keep_rule::top_k) return options.count;
  return std::max(index{1}, static_cast<index>(std::floor(options.ratio * static_cast<double>(tokens))));
}

/// `wanted` between min_tokens and max_tokens, of `tokens` tokens.
inline index bounded(index wanted, const keep_options& options, index tokens) {
  const index most = std::min(options.max_tokens.value_or(tokens), tokens);
  return std::clamp(wanted, std::min(options.min_tokens, tokens), most);
}

/// Asks the bit pattern, since -ffast-math would fold std::isnan to false.
inline bool is_nan(double value) {
  return (std::bit_cast<std::uint64_t>(value) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}
inline bool is_infinite(double value) {
  return (std::bit_cast<std::uint64_t>(value) & 0x7fffffffffffffffu) == 0x7ff0000000000000u;
}

/// Refuses scores that have no rank (NaN) or, for the chord, no distance (infinite).
template <class Score>
void check_scores(vector_view<const Score> scores, keep_rule rule) {
  if constexpr (std::is_floating_point_v<Score>) {
    for (index i = 0; i < scores.size; ++i) {
      require(!is_nan(scores[i]), "score of token ", i, " is NaN");
      require(rule != keep_rule::max_distance || !is_infinite(scores[i]), "score of token ", i,
              " is infinite, which max_distance cannot measure");
    }
  }
}

/// How many of the scores, sorted in descending order, the rule keeps, before min_tokens and max_tokens.
template <class Score>
index kept_by_rule(vector_view<const Score> descending, const keep_options& options) {
  if (options.rule != keep_rule::max_distance) return kept_share(options, descending.size);
  const std::optional<Score> threshold = elbow_threshold(descending);
  if (!threshold) return descending.size;
  const auto keeps = [&](Score score) { return options.strict ? score > *threshold : score >= *threshold; };
  return std::partition_point(descending.begin(), descending.end(), keeps) - descending.begin();
}

}  // namespace detail

/// How many of `tokens` tokens top_k or ratio keep, whatever their scores. Throws where an option is out of
/// range.
inline index kept_count(const keep_options& options, index tokens) {
  options.validate();
  return detail::bounded(detail::kept_share(options, tokens), options, tokens);
}

/// m(x) = |Γ(x) ∩ C| into scores[tokens], for each token row of `bits` (rows `bits_stride` words apart) and
/// the set `core`, both of `words` words.
inline void overlap(const word* bits, index tokens, index bits_stride, const word* core, index words,
                    std::int32_t* scores) {
  for (index x = 0; x < tokens; ++x) {
    scores[x] = static_cast<std::int32_t>(intersection_count(bits + x * bits_stride, core, words));
  }
}

/// Rows that stay, ascending, by the scores of the image tokens. Never empty unless `scores` is; keeps all
/// where max_distance finds no elbow (fewer than three tokens, or all scores equal). Throws when an option is
/// out of range or a score has no rank.
template <class Score>
std::vector<std::int32_t> core_tokens(vector_view<const Score> scores, const keep_options& options = {}) {
  options.validate();
  require(scores.size <= std::numeric_limits<std::int32_t>::max(), "too many tokens: ", scores.size);
  detail::check_scores(scores, options.rule);

  std::vector<std::int32_t> kept(static_cast<std::size_t>(scores.size));
  std::iota(kept.begin(), kept.end(), 0);
  std::stable_sort(kept.begin(), kept.end(),
                   [&](std::int32_t a, std::int32_t b) { return scores[a] > scores[b]; });
  std::vector<Score> descending(kept.size());
  std::transform(kept.begin(), kept.end(), descending.begin(), [&](std::int32_t row) { return scores[row]; });

  const index wanted =
      detail::kept_by_rule(vector_view<const Score>{descending.data(), scores.size}, options);
  kept.resize(static_cast<std::size_t>(detail::bounded(wanted, options, scores.size)));
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

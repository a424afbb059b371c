// SPDX-License-Identifier: Apache-2.0
// The k places of a row whose numbers have the largest magnitudes, each perhaps weighted: which neurons a
// token takes. Found by the histograms of top_cut.hpp, without sorting.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/top_cut.hpp"

namespace corematching::select {

inline namespace COREMATCHING_CPU_ISA {

/// Working memory of top_k, reused from token to token. Its content means nothing between calls.
struct top_k_scratch {
  std::vector<float> scores;
  core_scratch keys;
};

/// The chosen.size places n of `x` with the largest |x[n]| weights[n], ascending; ties go to the lower place.
/// Without weights (none at all) all are 1; otherwise each is >= 0. A NaN is larger than any number. Throws
/// `error` where there are fewer than chosen.size places.
inline void top_k(vector_view<std::int32_t> chosen, vector_view<const float> x,
                  vector_view<const float> weights, top_k_scratch& scratch) {
  require(chosen.size <= x.size, chosen.size, " of ", x.size, " numbers cannot be chosen");
  assert(weights.empty() || weights.size == x.size);
  if (chosen.size == 0) return;
  scratch.scores.resize(static_cast<std::size_t>(x.size));
  float* const scores = scratch.scores.data();
  for (index n = 0; n < x.size; ++n) scores[n] = std::abs(x[n]);
  if (!weights.empty())
    for (index n = 0; n < x.size; ++n) scores[n] *= weights[n];
  // Which NaN it is, is of no account.
  for (index n = 0; n < x.size; ++n) scores[n] = std::bit_cast<float>(score_key(scores[n]));

  const top_cut cut = top_positive(scores, x.size, chosen.size, scratch.keys);
  const auto is_chosen = [&](index n) {
    const std::int32_t key = activation_key(scores[n]);
    return key > cut.key || (key == cut.key && n < cut.ties_end);
  };
  // Each place is written and then kept or not: a branch would be foreseen wrongly for a third of them.
  std::int32_t* const positive = scratch.keys.keys.data();
  index count = 0;
  for (index n = 0; n < x.size; ++n) {
    positive[count] = static_cast<std::int32_t>(n);
    count += is_chosen(n) ? 1 : 0;
  }
  if (count == chosen.size) {
    std::copy_n(positive, count, chosen.data);
    return;
  }
  // Too few are positive: the first of the others join them.
  index zeros = chosen.size - count;
  std::int32_t* to = chosen.data;
  for (index n = 0; n < x.size; ++n) {
    const bool takes = is_chosen(n) || (activation_key(scores[n]) == 0 && zeros-- > 0);
    if (takes) *to++ = static_cast<std::int32_t>(n);
  }
}

inline void top_k(vector_view<std::int32_t> chosen, vector_view<const float> x,
                  vector_view<const float> weights = {}) {
  top_k_scratch scratch;
  top_k(chosen, x, weights, scratch);
}

/// x[n] = 0 for all n that are not among `chosen`, which ascend.
inline void zero_others(vector_view<float> x, index_view<> chosen) {
  float* from = x.data;
  for (index i = 0; i < chosen.size; ++i) {
    std::fill(from, x.data + chosen[i], 0.0f);
    from = x.data + chosen[i] + 1;
  }
  std::fill(from, x.data + x.size, 0.0f);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
// The shape of sorted scores, which says how far an elbow is to be trusted. A curve that falls, stays, and
// falls again lies above its chord on one side and below it on the other: which of the two bends is farther
// from the chord, and so whether few tokens are kept or nearly all, may hang on a little.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/max_distance.hpp"

namespace corematching::select {

/// The point of the sorted scores that is farthest from the chord on one side of it.
struct score_bend {
  index rank = 0;
  double score = 0;
  double distance = 0;  // from the chord along the scores, as a share of m_0 - m_{T-1}
};

struct score_profile {
  double first = 0, last = 0;  // m_0, m_{T-1}
  std::optional<index> elbow;  // its rank; it is one of the bends
  score_bend above, below;     // the chord; at rank 0 where no point lies there
};

inline namespace COREMATCHING_CPU_ISA {

/// The profile of scores in any order, which have ranks (see core_tokens()). None where there are no scores.
template <class Score>
std::optional<score_profile> profile_of(std::vector<Score> scores) {
  if (scores.empty()) return std::nullopt;
  std::ranges::sort(scores, std::greater<>{});
  const vector_view<const Score> m{scores.data(), std::ssize(scores)};
  const Score first = scores.front(), last = scores.back();
  score_profile profile{static_cast<double>(first), static_cast<double>(last), elbow_rank(m), {}, {}};
  profile.above.score = profile.below.score = profile.first;
  if (!profile.elbow) return profile;
  const double whole = static_cast<double>(m.size - 1) * (profile.first - profile.last);
  for (index i = 1; i < m.size; ++i) {
    const double offset = static_cast<double>(detail::chord_offset(m[i], first, last, i, m.size)) / whole;
    score_bend& bend = offset > 0 ? profile.above : profile.below;
    if (std::max(offset, -offset) > bend.distance)
      bend = {i, static_cast<double>(m[i]), std::max(offset, -offset)};
  }
  return profile;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

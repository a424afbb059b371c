// SPDX-License-Identifier: Apache-2.0
// Threshold by maximum geometric distance (CoreMatching, section on core tokens): draw the scores in
// descending order, m_0 >= ... >= m_{T-1}, and the chord from (0, m_0) to (T-1, m_{T-1}); the elbow is the
// point farthest from the chord and the threshold is its score.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Each product is rounded by itself. Contracted to a fused multiply-add, a near tie between two points would
/// be decided by the compiler's flags.
inline double rounded(double product) {
  volatile double result = product;
  return result;
}

/// Offset of a point from the chord, (m_i - m_0)·(T-1) - i·(m_{T-1} - m_0): below zero where the point lies
/// below the chord. The distance proper is this times a constant. Of integers both products lie in
/// [-(m_0 - m_{T-1})·(T-1), 0], which 64 bits hold for 32-bit scores and T <= 2^31; others must be checked.
template <class Score>
auto chord_offset(Score score, Score first, Score last, index i, index tokens) {
  if constexpr (std::is_integral_v<Score>) {
    const std::int64_t fall = std::int64_t{score} - first;
    const std::int64_t chord_fall = std::int64_t{last} - first;
    return fall * (tokens - 1) - i * chord_fall;
  } else {
    const double fall = double{score} - double{first};
    const double chord_fall = double{last} - double{first};
    return rounded(fall * static_cast<double>(tokens - 1)) - rounded(static_cast<double>(i) * chord_fall);
  }
}

/// Refuses 64-bit scores whose offsets 64 bits do not hold.
template <class Score>
void check_fall(Score first, Score last, index tokens) {
  if constexpr (std::is_integral_v<Score> && sizeof(Score) > 4) {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() / 2;
    require(first <= most && last >= -most && first - last <= most / (tokens - 1), "scores of ", tokens,
            " tokens from ", first, " to ", last, " lie too far apart to be measured");
  }
}

}  // namespace detail

/// Rank of the elbow, the first one if several points are equally far. Exact for integer scores; in double
/// for real ones. Nothing where there is no elbow: fewer than three scores, or all of them equal.
/// `descending` must be sorted and finite.
template <class Score>
std::optional<index> elbow_rank(vector_view<const Score> descending) {
  const index tokens = descending.size;
  if (tokens < 3) return std::nullopt;
  const Score first = descending[0];
  const Score last = descending[tokens - 1];
  if (first == last) return std::nullopt;
  detail::check_fall(first, last, tokens);

  index elbow = 0;
  auto farthest = detail::chord_offset(first, first, last, 0, tokens);
  for (index i = 1; i < tokens; ++i) {
    const auto offset = detail::chord_offset(descending[i], first, last, i, tokens);
    const auto distance = std::max(offset, -offset);
    if (distance > farthest) {
      farthest = distance;
      elbow = i;
    }
  }
  return elbow;
}

/// Score of the elbow.
template <class Score>
std::optional<Score> elbow_threshold(vector_view<const Score> descending) {
  const std::optional<index> elbow = elbow_rank(descending);
  return elbow ? std::optional<Score>(descending[*elbow]) : std::nullopt;
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

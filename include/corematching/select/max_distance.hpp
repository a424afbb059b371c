// SPDX-License-Identifier: Apache-2.0
// Threshold by maximum geometric distance (CoreMatching, section on core tokens): draw the scores in
// descending order, m_0 >= ... >= m_{T-1}, and the chord from (0, m_0) to (T-1, m_{T-1}); the elbow is the
// point farthest from the chord and the threshold is its score.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "corematching/core/config.hpp"
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

/// Offset of a point from the chord, (m_i - m_0)·(T-1) - i·(m_{T-1} - m_0), without its sign. The distance
/// proper is this times a constant. Both products lie in [-2^63, 0] for 32-bit scores and T <= 2^31, so 64
/// bits hold them and their difference.
template <class Score>
auto chord_offset(Score score, Score first, Score last, index i, index tokens) {
  if constexpr (std::is_integral_v<Score>) {
    static_assert(sizeof(Score) <= 4, "integer scores have at most 32 bits: their offsets are exact in 64");
    const std::int64_t fall = std::int64_t{score} - first;
    const std::int64_t chord_fall = std::int64_t{last} - first;
    const std::int64_t offset = fall * (tokens - 1) - i * chord_fall;
    return offset < 0 ? -offset : offset;
  } else {
    const double fall = double{score} - double{first};
    const double chord_fall = double{last} - double{first};
    const double offset =
        rounded(fall * static_cast<double>(tokens - 1)) - rounded(static_cast<double>(i) * chord_fall);
    return offset < 0 ? -offset : offset;
  }
}

}  // namespace detail

/// Score of the elbow, the first one if several points are equally far. Exact for integer scores; in double
/// for real ones. Nothing where there is no elbow: fewer than three scores, or all of them equal.
/// `descending` must be sorted and finite.
template <class Score>
std::optional<Score> elbow_threshold(vector_view<const Score> descending) {
  const index tokens = descending.size;
  if (tokens < 3) return std::nullopt;
  const Score first = descending[0];
  const Score last = descending[tokens - 1];
  if (first == last) return std::nullopt;

  index elbow = 0;
  auto farthest = detail::chord_offset(first, first, last, 0, tokens);
  for (index i = 1; i < tokens; ++i) {
    const auto offset = detail::chord_offset(descending[i], first, last, i, tokens);
    if (offset > farthest) {
      farthest = offset;
      elbow = i;
    }
  }
  return descending[elbow];
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

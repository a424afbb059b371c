// SPDX-License-Identifier: Apache-2.0
// The largest of some numbers, and where it stands: the greedy choice of a token.
#pragma once

#include <cassert>
#include <cmath>
#include <cstdint>

#include "corematching/core/view.hpp"

namespace corematching {

struct maximum {
  float value = 0;
  std::int32_t place = 0;
};

/// The first NaN, if there is one, otherwise the first of the largest numbers. There must be some.
inline maximum argmax(vector_view<const float> values) {
  assert(!values.empty());
  index best = 0;
  for (index i = 0; i < values.size && !std::isnan(values[best]); ++i)
    if (!(values[i] <= values[best])) best = i;
  return {values[best], static_cast<std::int32_t>(best)};
}

}  // namespace corematching

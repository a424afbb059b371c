// SPDX-License-Identifier: Apache-2.0
// Which numbers a weight may hold in each storage type, and the errors that say so.
#pragma once

#include <algorithm>
#include <cmath>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

/// Throws `error` for a number that is not finite or that `type` cannot store, and names it.
inline void check_weights(vector_view<const float> weights, dtype type) {
  const float limit = largest_of(type);
  // A NaN compares with nothing.
  const float* const found =
      std::find_if(weights.begin(), weights.end(), [limit](float x) { return !(std::abs(x) <= limit); });
  if (found == weights.end()) return;
  require(std::isfinite(*found), "it holds ", *found, ", which is no finite number");
  fail("it holds ", *found, ", beyond the ", limit, " that ", name_of(type), " can store");
}

/// Throws `error` where rows of `cols` weights are no whole number of `type`'s blocks.
inline void check_row_length(index cols, dtype type) {
  require(cols % block_of(type) == 0, name_of(type), " needs rows of a multiple of ", block_of(type),
          " weights, not ", cols);
}

}  // namespace corematching

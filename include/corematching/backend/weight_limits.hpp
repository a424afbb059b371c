// SPDX-License-Identifier: Apache-2.0
// Which numbers a weight may hold in each storage type, and the errors that say so.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

/// Largest magnitude that `type` stores as a finite number; in the block formats the scale, largest / 127 or
/// / 8, is a binary16.
constexpr float largest_weight(dtype type) {
  constexpr float largest_f16 = 65504;
  switch (type) {
    case dtype::f32: return std::numeric_limits<float>::max();
    case dtype::bf16: return to_float(bf16{0x7f7f});
    case dtype::f16: return largest_f16;
    case dtype::q8_0: return 127 * largest_f16;
    case dtype::q4_0: return 8 * largest_f16;
  }
  return 0;
}

/// Throws `error` for a number that is not finite or that `type` cannot store, and names it.
inline void check_weights(vector_view<const float> weights, dtype type) {
  const float limit = largest_weight(type);
  // A NaN compares with nothing.
  const float* const found =
      std::find_if(weights.begin(), weights.end(), [limit](float x) { return !(std::abs(x) <= limit); });
  if (found == weights.end()) return;
  require(std::isfinite(*found), "it holds ", *found, ", which is no finite number");
  fail("it holds ", *found, ", beyond the ", limit, " that ", name_of(type), " can store");
}

/// Throws `error` where rows of `cols` weights are no whole number of `type`'s blocks.
inline void check_row_length(index cols, dtype type) {
  require(!is_quantised(type) || cols % block_size == 0, name_of(type), " needs rows of a multiple of ",
          block_size, " weights, not ", cols);
}

}  // namespace corematching

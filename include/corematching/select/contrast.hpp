// SPDX-License-Identifier: Apache-2.0
// Core tokens by contrast: an image token is scored by m(x) = |Γ(x) ∩ (R \ C)|, R being the reference (the
// activated neurons of one text token, or the core neurons counted over text alone) and C the core neurons
// counted over the image tokens alone: what every patch fires says nothing. This is not the paper's rule.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "corematching/core/view.hpp"

namespace corematching::select {

/// R \ C, what image tokens are then matched with in place of core neurons. Ascending, as both are.
inline std::vector<std::int32_t> contrast_set(index_view<> reference, index_view<> image_core) {
  std::vector<std::int32_t> rest;
  std::ranges::set_difference(reference, image_core, std::back_inserter(rest));
  return rest;
}

}  // namespace corematching::select

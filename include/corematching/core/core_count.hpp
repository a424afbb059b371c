// SPDX-License-Identifier: Apache-2.0
// How many neurons of one token count as its core neurons.
#pragma once

#include <cstdint>

namespace corematching {

enum class core_count : std::uint8_t {
  per_token,  // k(x) = max(1, floor(ρ·|Γ(x)|)), and 0 where Γ(x) is empty
  mean_count  // k = floor(ρ · mean over tokens of |Γ(x)|), for every token (CoreInfer's code)
};

}  // namespace corematching

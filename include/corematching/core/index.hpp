// SPDX-License-Identifier: Apache-2.0
// The type of sizes, places and strides.
#pragma once

#include <cstddef>

namespace corematching {

using index = std::ptrdiff_t;

}  // namespace corematching

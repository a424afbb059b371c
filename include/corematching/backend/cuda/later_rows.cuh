// SPDX-License-Identifier: Apache-2.0
// What a kernel that is captured cannot be told by its arguments, since it runs again with the same ones: how
// many rows a cache has got since.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace corematching::cuda {

/// Rows that a cache has beyond those that a kernel's other arguments speak of: none, or as many as a counter
/// in device memory has counted from `start` on.
struct later_rows {
  const std::int32_t* counter = nullptr;
  std::int32_t start = 0;

  __device__ int count() const { return counter == nullptr ? 0 : *counter - start; }
};

}  // namespace corematching::cuda

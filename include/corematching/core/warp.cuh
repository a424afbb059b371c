// SPDX-License-Identifier: Apache-2.0
// Sums and maxima over the lanes of a warp and the warps of a block, in a fixed order: the same input gives
// the same bits in every run.
#pragma once

#include <cuda_runtime.h>

#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

/// The sum over all lanes, in every lane. All 32 lanes must take part.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

template <class T>
__device__ inline T warp_max(T value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(all_lanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

/// The sum over all threads of a block of `Threads`, a multiple of 32 and at most 1024, in every thread.
template <int Threads, class T>
__device__ inline T block_sum(T value) {
  static_assert(Threads % warp_size == 0 && Threads <= 1024);
  constexpr int warps = Threads / warp_size;
  __shared__ T sums[warps];
  value = warp_sum(value);
  if constexpr (warps == 1) return value;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % warp_size == 0) sums[thread / warp_size] = value;
  __syncthreads();
  value = T{};
#pragma unroll
  for (int w = 0; w < warps; ++w) value += sums[w];
  __syncthreads();  // sums may be written again
  return value;
}

}  // namespace corematching::cuda::detail

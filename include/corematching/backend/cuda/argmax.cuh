// SPDX-License-Identifier: Apache-2.0
// The largest of some numbers in device memory. One block finds it: a vocabulary of logits is read in the
// time that a second kernel would take to start.
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/core/argmax.hpp"
#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/core/warp.cuh"

namespace corematching::cuda::detail {

inline constexpr int argmax_threads = 1024;

/// A number that is larger for what comes first in the answer: NaN, then larger values, then earlier places.
__device__ inline unsigned long long rank_of(float value, index place) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // the same for both zeros
  const unsigned ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  const unsigned high = value != value ? 0xffffffffu : ordered;
  return static_cast<unsigned long long>(high) << 32 | (0xffffffffu - static_cast<unsigned>(place));
}

/// *to = the first NaN or the first of the largest values.
template <int Threads>
__global__ void __launch_bounds__(Threads) find_argmax(maximum* to, const float* values, index size) {
  wait_for_earlier_kernels();
  static_assert(Threads == warp_size * warp_size);
  __shared__ unsigned long long largest[warp_size];
  const int thread = static_cast<int>(threadIdx.x);
  unsigned long long mine = 0;
#pragma unroll 4
  for (index i = thread; i < size; i += Threads) {
    const unsigned long long rank = rank_of(values[i], i);
    mine = rank > mine ? rank : mine;
  }
  mine = warp_max(mine);
  if (thread % warp_size == 0) largest[thread / warp_size] = mine;
  __syncthreads();
  if (thread >= warp_size) return;
  mine = warp_max(largest[thread]);
  if (thread > 0) return;
  const auto place = static_cast<std::int32_t>(0xffffffffu - static_cast<unsigned>(mine));
  *to = {values[place], place};
}

/// Where the answer is written down: on the device, and for the host in page-locked memory, into which it is
/// copied without a detour.
struct argmax_places {
  workspace device;
  std::shared_ptr<std::byte> host;
};

/// The first NaN or the first of the largest values, of which there must be some. Waits for the stream.
inline maximum argmax(const context& on, argmax_places& places,
                      vector_view<const float, device_space> values) {
  assert(values.size > 0 && values.size <= std::numeric_limits<std::int32_t>::max());
  auto* const found = places.device.at_least<maximum>(on.stream, 1);
  if (!places.host) places.host = page_locked(sizeof(maximum));
  launch_early(on, dim3(1), dim3(argmax_threads), find_argmax<argmax_threads>, found, values.data,
               values.size);
  COREMATCHING_CUDA_CHECK(
      cudaMemcpyAsync(places.host.get(), found, sizeof(maximum), cudaMemcpyDeviceToHost, on.stream));
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(on.stream));
  maximum result;
  std::memcpy(&result, places.host.get(), sizeof result);
  return result;
}

}  // namespace corematching::cuda::detail

// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021) in the half-split layout: element i of a head turns with element
// i + head_dim / 2 by the angle position * frequency i.
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cmath>
#include <cstdint>

#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

inline constexpr int rotary_threads = 128;

/// Turns one of a row's `pairs` elements with its partner; rows are the grid's x. Angles are formed as on the
/// CPU, in binary32, and may be large: sincosf reduces them exactly.
template <int Threads>
__global__ void __launch_bounds__(Threads) rotate_pairs(float* x, index stride, const std::int32_t* positions,
                                                        const float* frequencies, int half, int pairs) {
  const int pair = static_cast<int>(blockIdx.y * Threads + threadIdx.x);
  if (pair >= pairs) return;
  const int i = pair % half;
  float* const first = x + blockIdx.x * stride + pair / half * (2 * half) + i;
  float sine, cosine;
  sincosf(static_cast<float>(positions[blockIdx.x]) * frequencies[i], &sine, &cosine);
  const float a = first[0], b = first[half];
  first[0] = a * cosine - b * sine;
  first[half] = b * cosine + a * sine;
}

/// Turns every head of row i of x [t, heads * head_dim] in place by positions[i] * frequencies [head_dim /
/// 2].
inline void rotary(const context& on, matrix_view<float, device_space> x, index_view<device_space> positions,
                   vector_view<const float, device_space> frequencies, index heads) {
  assert(positions.size == x.rows && x.cols == 2 * frequencies.size * heads);
  const index pairs = frequencies.size * heads;
  const dim3 grid(static_cast<unsigned>(x.rows), static_cast<unsigned>(ceil_div(pairs, rotary_threads)));
  launch(on.stream, grid, rotary_threads, rotate_pairs<rotary_threads>, x.data, x.stride, positions.data,
         frequencies.data, frequencies.size, pairs);
}

}  // namespace corematching::cuda::detail

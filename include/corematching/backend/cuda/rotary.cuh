// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021) in the half-split layout: element i of a head turns with element
// i + head_dim / 2 by the angle position * frequency i.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>

#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

inline constexpr int rotary_threads = 128;

/// Rows of heads that are turned: each has so many pairs of elements.
struct turned_rows {
  float* data;
  index stride;
  int pairs;
};

/// Turns one of the pairs of a row; rows are the grid's x, and its z chooses between two matrices of them.
/// Angles are formed as on the CPU, in binary32, and may be large: sincosf reduces them exactly.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    rotate_pairs(turned_rows one, turned_rows other, const std::int32_t* positions, const float* frequencies,
                 int half) {
  wait_for_earlier_kernels();
  const turned_rows x = blockIdx.z == 0 ? one : other;  // a reference would be to a copy in local memory
  const int pair = static_cast<int>(blockIdx.y * Threads + threadIdx.x);
  if (pair >= x.pairs) return;
  const int i = pair % half;
  float* const first = x.data + blockIdx.x * x.stride + pair / half * (2 * half) + i;
  float sine, cosine;
  sincosf(static_cast<float>(positions[blockIdx.x]) * frequencies[i], &sine, &cosine);
  const float a = first[0], b = first[half];
  first[0] = a * cosine - b * sine;
  first[half] = b * cosine + a * sine;
}

/// Turns every head of row i of x, and of `other` where it has rows, in place by positions[i] * frequencies
/// [head_dim / 2]; both [t, heads * head_dim], with heads of their own number.
inline void rotary(const context& on, matrix_view<float, device_space> x,
                   matrix_view<float, device_space> other, index_view<device_space> positions,
                   vector_view<const float, device_space> frequencies) {
  assert(positions.size == x.rows && x.cols % (2 * frequencies.size) == 0);
  assert(other.rows == 0 || (other.rows == x.rows && other.cols % (2 * frequencies.size) == 0));
  const auto turned = [](const matrix_view<float, device_space>& rows) {
    return turned_rows{rows.data, rows.stride, static_cast<int>(rows.cols / 2)};
  };
  const dim3 grid(static_cast<unsigned>(x.rows),
                  static_cast<unsigned>(ceil_div(std::max(x.cols, other.cols) / 2, rotary_threads)),
                  other.rows == 0 ? 1 : 2);
  launch_early(on, grid, rotary_threads, rotate_pairs<rotary_threads>, turned(x), turned(other),
               positions.data, frequencies.data, frequencies.size);
}

}  // namespace corematching::cuda::detail

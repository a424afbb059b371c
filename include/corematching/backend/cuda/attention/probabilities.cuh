// SPDX-License-Identifier: Apache-2.0
// The weights of one query row's softmax, [heads, keys]: scores, a warp for each, then a block for every
// head's row of them.
#pragma once

#include "corematching/backend/cuda/attention/operands.cuh"
#include "corematching/backend/cuda/device.cuh"

namespace corematching::cuda::detail {

inline constexpr int probability_threads = 256;

/// p[h, j] = q_h . k_j * scale / ln 2, for head blockIdx.y; warps take keys in turns.
template <class T, bool Aligned>
__global__ void __launch_bounds__(probability_threads)
    score_keys(attention_operands<T> in, float* p, index p_stride) {
  constexpr int elements = Aligned ? per_load<T> : 1, warps = probability_threads / warp_size;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / in.group;
  const float* query = in.query(0, head);
  const auto step = static_cast<int>(gridDim.x) * warps;
  for (int j = static_cast<int>(blockIdx.x) * warps + thread / warp_size; j < in.key_count; j += step) {
    const T* key = in.key(j, kv_head);
    float sum = 0;
    for (int d = lane * elements; d < in.head_dim; d += warp_size * elements) {
      if constexpr (Aligned) {
        float part[elements];
        load_widened(key + d, part);
#pragma unroll
        for (int e = 0; e < elements; ++e) sum += query[d + e] * in.scale * part[e];
      } else {
        sum += query[d] * in.scale * widened(key[d]);
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) p[head * p_stride + j] = sum;
  }
}

/// The largest of all threads' values, in every thread.
template <int Threads>
__device__ float block_max(float value) {
  __shared__ float largest[Threads / warp_size];
  const int thread = static_cast<int>(threadIdx.x);
  value = warp_max(value);
  if (thread % warp_size == 0) largest[thread / warp_size] = value;
  __syncthreads();
  for (const float other : largest) value = fmaxf(value, other);
  return value;
}

/// p = softmax(p ln 2) in place, for row blockIdx.x.
template <int Threads>
__global__ void __launch_bounds__(Threads) normalise_scores(float* p, index p_stride, int keys) {
  float* row = p + blockIdx.x * p_stride;
  const int thread = static_cast<int>(threadIdx.x);
  float largest = no_score, sum = 0;
  for (int j = thread; j < keys; j += Threads) largest = fmaxf(largest, row[j]);
  largest = block_max<Threads>(largest);
  for (int j = thread; j < keys; j += Threads) sum += exp2f(row[j] - largest);
  sum = block_sum<Threads>(sum);
  for (int j = thread; j < keys; j += Threads) row[j] = exp2f(row[j] - largest) / sum;
}

/// p[h] = softmax(q_h k^T * scale); p [heads, keys], one query row.
template <class T>
void attention_probabilities(const context& on, matrix_view<float, device_space> p,
                             const attention_operands<T>& in, bool whole_loads) {
  constexpr index warps = probability_threads / warp_size;
  const dim3 grid(stepping_grid(in.key_count, 4 * warps).x, static_cast<unsigned>(in.heads));
  launch(on.stream, grid, probability_threads, whole_loads ? score_keys<T, true> : score_keys<T, false>, in,
         p.data, p.stride);
  launch(on.stream, static_cast<unsigned>(in.heads), probability_threads,
         normalise_scores<probability_threads>, p.data, p.stride, in.key_count);
}

}  // namespace corematching::cuda::detail

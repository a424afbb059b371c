// SPDX-License-Identifier: Apache-2.0
// What the kernels of attention are given. Scores are kept in powers of two: the queries' factor is
// scale / ln 2, so that a weight is exp2(score - largest score).
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>

#include "corematching/backend/backend.hpp"
#include "corematching/core/elements.cuh"
#include "corematching/core/launch.cuh"
#include "corematching/core/warp.cuh"

namespace corematching::cuda::detail {

/// Below every score; a finite number, so that differences of two of them are numbers.
inline constexpr float no_score = std::numeric_limits<float>::lowest();
/// The score of a key that is not to be seen: its weight is exp2(-infinity) = 0.
inline constexpr float hidden_score = -std::numeric_limits<float>::infinity();

/// Queries [query_count, heads * head_dim] in binary32; keys and values [key_count, heads / group * head_dim]
/// as elements of type `T`; all strides in elements.
template <class T>
struct attention_operands {
  const float* queries;
  const T* keys;
  const T* values;
  index query_stride;
  index key_stride;
  index value_stride;
  int query_count;
  int key_count;
  int heads;
  int group;  // query heads that share a key/value head
  int head_dim;
  float scale;  // of queries, so that scores are powers of two
  bool causal;
  int window;  // of keys that a query sees; 0: all

  __device__ int visible_keys(int query) const {
    return causal ? key_count - query_count + query + 1 : key_count;
  }
  __device__ int first_visible_key(int query) const {
    return window > 0 ? max(0, visible_keys(query) - window) : 0;
  }
  __device__ const float* query(int row, int head) const {
    return queries + row * query_stride + index{head} * head_dim;
  }
  __device__ const T* key(int row, int kv_head) const {
    return keys + row * key_stride + index{kv_head} * head_dim;
  }
  __device__ const T* value(int row, int kv_head) const {
    return values + row * value_stride + index{kv_head} * head_dim;
  }
};

template <class T>
attention_operands<T> operands_of(matrix_view<const float, device_space> q, stored_view<device_space> k,
                                  stored_view<device_space> v, const attention_shape& shape) {
  constexpr index unit = sizeof(T);
  assert(dtype_of<T> == k.type && k.row_bytes % unit == 0 && v.row_bytes % unit == 0);
  assert(q.cols == shape.query_size() && k.cols == shape.kv_size() && shape.heads % shape.kv_heads == 0);
  return {.queries = q.data,
          .keys = reinterpret_cast<const T*>(k.data),
          .values = reinterpret_cast<const T*>(v.data),
          .query_stride = q.stride,
          .key_stride = k.row_bytes / unit,
          .value_stride = v.row_bytes / unit,
          .query_count = static_cast<int>(q.rows),
          .key_count = static_cast<int>(k.rows),
          .heads = static_cast<int>(shape.heads),
          .group = static_cast<int>(shape.heads / shape.kv_heads),
          .head_dim = static_cast<int>(shape.head_dim),
          .scale = shape.scale * 1.44269504f,
          .causal = shape.causal,
          .window = static_cast<int>(shape.window)};
}

/// Whether every head of every row begins at a multiple of 16 bytes and is a whole number of 16-byte loads.
inline bool takes_whole_loads(const stored_view<device_space>& m, index head_dim) {
  const auto head_bytes = static_cast<index>(bytes_of(m.type, static_cast<std::size_t>(head_dim)));
  return is_aligned(m.data) && m.row_bytes % 16 == 0 && head_bytes % 16 == 0;
}

/// The sum over `Lanes` neighbouring lanes, in each of them. All 32 lanes must take part.
template <int Lanes>
__device__ inline float team_sum(float value) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

template <int Lanes>
__device__ inline float team_max(float value) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(all_lanes, value, distance));
  return value;
}

}  // namespace corematching::cuda::detail

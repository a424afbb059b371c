// SPDX-License-Identifier: Apache-2.0
// Around the matrix products of attention on tensor cores: tiles of queries, keys and values in 16 bits on
// their way into shared memory, and the softmax of the scores there.
#pragma once

#include "corematching/backend/cuda/attention/operands.cuh"

namespace corematching::cuda::detail {

inline constexpr int tensor_threads = 128;
inline constexpr int tensor_warps = tensor_threads / warp_size;
inline constexpr int tensor_keys = 64;
inline constexpr int fragment_side = 16;
// Rows of shared tiles are padded by 16 bytes, or 32, so that rows of a fragment lie in different banks.
inline constexpr int score_stride = tensor_keys + 8;

/// A tile of 64 rows of `HeadDim` elements between memory, registers and shared memory.
template <class T, int HeadDim>
struct staged_tile {
  static constexpr int stride = HeadDim + 8;
  static constexpr int row_loads = HeadDim / per_load<T>;
  static constexpr int loads = tensor_keys * row_loads / tensor_threads;  // of a thread
  uint4 parts[loads];

  /// `rows` of the rows exist; the others are 0, since a weight of 0 times what lies there could be NaN.
  __device__ void load(const T* from, index from_stride, int rows) {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int place = static_cast<int>(threadIdx.x) + i * tensor_threads, row = place / row_loads;
      parts[i] = make_uint4(0, 0, 0, 0);
      if (row < rows)
        parts[i] =
            *reinterpret_cast<const uint4*>(from + row * from_stride + place % row_loads * per_load<T>);
    }
  }
  __device__ void store(uint4* tile) const {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int place = static_cast<int>(threadIdx.x) + i * tensor_threads;
      tile[place / row_loads * (stride / per_load<T>)+place % row_loads] = parts[i];
    }
  }
};

template <class T>
__device__ inline unsigned two_narrowed(float low, float high) {
  return narrowed<T>(low).bits | static_cast<unsigned>(narrowed<T>(high).bits) << 16;
}

/// Queries from `first`, scaled and rounded, as a tile; rows that do not exist are 0.
template <class T, int HeadDim>
__device__ void stage_queries(uint4* tile, const attention_operands<T>& in, int head, int first) {
  using staged = staged_tile<T, HeadDim>;
  for (int place = static_cast<int>(threadIdx.x); place < tensor_keys * staged::row_loads;
       place += tensor_threads) {
    const int row = place / staged::row_loads, part = place % staged::row_loads;
    uint4 rounded = make_uint4(0, 0, 0, 0);
    if (first + row < in.query_count) {
      const float* q = in.query(first + row, head) + part * per_load<T>;
      const float s = in.scale;
      rounded = make_uint4(two_narrowed<T>(q[0] * s, q[1] * s), two_narrowed<T>(q[2] * s, q[3] * s),
                           two_narrowed<T>(q[4] * s, q[5] * s), two_narrowed<T>(q[6] * s, q[7] * s));
    }
    tile[row * (staged::stride / per_load<T>)+part] = rounded;
  }
}

/// The running softmax of a warp's 16 rows: lanes 2r and 2r + 1 have row r, each every other four keys of it.
template <class T>
struct row_softmax {
  float largest = no_score;
  float sum = 0;

  /// Turns the scores of 64 keys, of which the row sees `seen`, into weights in 16 bits; returns the factor
  /// of what was computed before.
  __device__ float take(float* scores, uint2* weights, int seen) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size, row = lane / 2, half = lane % 2;
    float top = largest;
#pragma unroll
    for (int i = half; i < tensor_keys / 4; i += 2) {
      const float4 four = *reinterpret_cast<const float4*>(scores + row * score_stride + 4 * i);
      const float s[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int b = 0; b < 4; ++b) top = fmaxf(top, 4 * i + b < seen ? s[b] : hidden_score);
    }
    top = team_max<2>(top);
    const float factor = exp2f(largest - top);
    largest = top;
    float added = 0;
#pragma unroll
    for (int i = half; i < tensor_keys / 4; i += 2) {
      const float4 four = *reinterpret_cast<const float4*>(scores + row * score_stride + 4 * i);
      float s[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        s[b] = 4 * i + b < seen ? exp2f(s[b] - top) : 0.0f;
        added += widened(narrowed<T>(s[b]));  // what values are multiplied by, so that weights sum to one
      }
      weights[row * (score_stride / 4) + i] =
          make_uint2(two_narrowed<T>(s[0], s[1]), two_narrowed<T>(s[2], s[3]));
    }
    sum = sum * factor + team_sum<2>(added);
    return factor;
  }
};

}  // namespace corematching::cuda::detail

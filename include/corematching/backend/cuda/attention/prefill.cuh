// SPDX-License-Identifier: Apache-2.0
// Attention of many query rows in binary32: a block takes 64 queries of one head, walks the keys that they
// see by 64 and keeps a running softmax (FlashAttention, Dao et al. 2022), so that scores never leave the
// processor. Keys and values of any storage type, length and alignment; what half-precision caches of the
// usual shapes take instead stands in tensor_core.cuh.
#pragma once

#include "corematching/backend/cuda/attention/operands.cuh"
#include "corematching/backend/cuda/device.cuh"

namespace corematching::cuda::detail {

// A block's threads are 16 x 16; each has 4 queries by 4 keys of the scores, and 4 queries by 4 neighbouring
// columns of every 64 of the output. 16 neighbouring lanes share their queries.
inline constexpr int prefill_threads = 256;
inline constexpr int prefill_queries = 64;
inline constexpr int prefill_keys = 64;
inline constexpr int prefill_depth = 32;    // elements of queries and keys that are staged together
inline constexpr int staged_values = 32;    // keys whose values are staged together
inline constexpr int padded_tile = 64 + 4;  // rows begin in different banks, at multiples of 16 bytes

__device__ inline float4 four_at(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

/// to[d, i] = row(i)[first + d] for 64 rows of which `rows` exist; 0 for what does not.
template <class Row>
__device__ void stage_transposed(float* to, const Row& element, int rows, int first, int head_dim) {
  for (int i = static_cast<int>(threadIdx.x); i < 64 * prefill_depth; i += prefill_threads) {
    const int row = i / prefill_depth, d = i % prefill_depth;
    to[d * padded_tile + row] = row < rows && first + d < head_dim ? element(row, first + d) : 0.0f;
  }
}

/// Scores of this thread's 4 queries with its 4 keys. `staged` holds 2 * prefill_depth * padded_tile.
template <class T>
__device__ void score_tile(float (&scores)[4][4], float* staged, const attention_operands<T>& in, int head,
                           int first_query, int first_key) {
  const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
  float* const keys = staged + prefill_depth * padded_tile;
  const auto query = [&](int row, int d) { return in.query(first_query + row, head)[d] * in.scale; };
  const auto key = [&](int row, int d) { return widened(in.key(first_key + row, head / in.group)[d]); };
#pragma unroll
  for (int a = 0; a < 4; ++a)
#pragma unroll
    for (int b = 0; b < 4; ++b) scores[a][b] = 0;
  for (int first = 0; first < in.head_dim; first += prefill_depth) {
    __syncthreads();  // what was staged before has been read
    stage_transposed(staged, query, in.query_count - first_query, first, in.head_dim);
    stage_transposed(keys, key, in.key_count - first_key, first, in.head_dim);
    __syncthreads();
#pragma unroll 8
    for (int d = 0; d < prefill_depth; ++d) {
      const float4 q = four_at(staged + d * padded_tile + 4 * down);
      const float4 k = four_at(keys + d * padded_tile + 4 * across);
      const float left[4] = {q.x, q.y, q.z, q.w}, right[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
      for (int a = 0; a < 4; ++a)
#pragma unroll
        for (int b = 0; b < 4; ++b) scores[a][b] += left[a] * right[b];
    }
  }
}

/// A thread's part of 64 running softmaxes.
template <int Columns>
struct softmax_tile {
  float largest[4];
  float sum[4];
  float output[4][Columns / 16];

  __device__ softmax_tile() {
#pragma unroll
    for (int a = 0; a < 4; ++a) {
      largest[a] = no_score;
      sum[a] = 0;
#pragma unroll
      for (int c = 0; c < Columns / 16; ++c) output[a][c] = 0;
    }
  }

  /// Takes the scores of a tile of keys in; their weights go to `weights`, padded_tile apart.
  template <class T>
  __device__ void take(float (&scores)[4][4], float* weights, const attention_operands<T>& in,
                       int first_query, int first_key) {
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
    for (int a = 0; a < 4; ++a) {
      const int seen = in.visible_keys(min(first_query + 4 * down + a, in.query_count - 1));
      float top = largest[a];
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        if (first_key + 4 * across + b >= seen) scores[a][b] = hidden_score;
        top = fmaxf(top, scores[a][b]);
      }
      top = team_max<16>(top);
      const float factor = exp2f(largest[a] - top);
      largest[a] = top;
      float added = 0;
#pragma unroll
      for (int b = 0; b < 4; ++b) added += scores[a][b] = exp2f(scores[a][b] - top);
      sum[a] = sum[a] * factor + team_sum<16>(added);
#pragma unroll
      for (int c = 0; c < Columns / 16; ++c) output[a][c] *= factor;
      *reinterpret_cast<float4*>(weights + (4 * down + a) * padded_tile + 4 * across) =
          make_float4(scores[a][0], scores[a][1], scores[a][2], scores[a][3]);
    }
  }

  /// output += weights[:, first..first + staged_values] values; `values` [staged_values, Columns].
  __device__ void add(const float* weights, const float* values, int first) {
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll 2
    for (int j = 0; j < staged_values; j += 4) {
      float4 left[4];
#pragma unroll
      for (int a = 0; a < 4; ++a) left[a] = four_at(weights + (4 * down + a) * padded_tile + first + j);
#pragma unroll
      for (int b = 0; b < 4; ++b)
#pragma unroll
        for (int c = 0; c < Columns / 64; ++c) {
          const float4 v = four_at(values + (j + b) * Columns + 64 * c + 4 * across);
#pragma unroll
          for (int a = 0; a < 4; ++a) {
            const float w = b == 0 ? left[a].x : b == 1 ? left[a].y : b == 2 ? left[a].z : left[a].w;
            output[a][4 * c] += w * v.x;
            output[a][4 * c + 1] += w * v.y;
            output[a][4 * c + 2] += w * v.z;
            output[a][4 * c + 3] += w * v.w;
          }
        }
    }
  }
};

/// Adds the weighted values of the 64 keys from `first_key`; columns `window` of the head.
template <int Columns, class T>
__device__ void add_values(softmax_tile<Columns>& tile, float* staged, const float* weights,
                           const attention_operands<T>& in, int kv_head, int window, int first_key) {
#pragma unroll 1
  for (int part = 0; part < prefill_keys; part += staged_values) {
    __syncthreads();  // weights are written, and what was staged before has been read
    for (int i = static_cast<int>(threadIdx.x); i < staged_values * Columns; i += prefill_threads) {
      const int key = first_key + part + i / Columns, column = window + i % Columns;
      const bool exists = key < in.key_count && column < in.head_dim;
      staged[i] = exists ? widened(in.value(key, kv_head)[column]) : 0.0f;
    }
    __syncthreads();
    tile.add(weights, staged, part);
  }
}

/// 64 queries of head blockIdx.y, the last ones first, since they see most; columns blockIdx.z * Columns.. of
/// the output.
template <class T, int Columns>
__global__ void __launch_bounds__(prefill_threads)
    prefill_tiles(attention_operands<T> in, float* y, index y_stride) {
  constexpr int halves = 2 * prefill_depth * padded_tile;
  constexpr int room = halves > staged_values * Columns ? halves : staged_values * Columns;
  alignas(16) __shared__ float staged[room];
  alignas(16) __shared__ float weights[prefill_queries * padded_tile];
  const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
  const int head = static_cast<int>(blockIdx.y), window = static_cast<int>(blockIdx.z) * Columns;
  const int first_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * prefill_queries;
  const int last_query = min(first_query + prefill_queries, in.query_count) - 1;
  const int keys = in.visible_keys(last_query);
  softmax_tile<Columns> tile;
  for (int first_key = 0; first_key < keys; first_key += prefill_keys) {
    float scores[4][4];
    score_tile(scores, staged, in, head, first_query, first_key);
    tile.take(scores, weights, in, first_query, first_key);
    add_values(tile, staged, weights, in, head / in.group, window, first_key);
  }
#pragma unroll
  for (int a = 0; a < 4; ++a) {
    const int row = first_query + 4 * down + a;
    if (row > last_query) continue;
    float* const out = y + row * y_stride + index{head} * in.head_dim;
#pragma unroll
    for (int c = 0; c < Columns / 16; ++c) {
      const int column = window + c / 4 * 64 + 4 * across + c % 4;
      if (column < in.head_dim) out[column] = tile.output[a][c] / tile.sum[a];
    }
  }
}

/// y = softmax(q k^T * scale) v in binary32.
template <class T>
void prefill_attention(const context& on, matrix_view<float, device_space> y,
                       const attention_operands<T>& in) {
  const auto queue = [&](auto kernel, index columns) {
    const dim3 grid(static_cast<unsigned>(ceil_div(in.query_count, prefill_queries)),
                    static_cast<unsigned>(in.heads), static_cast<unsigned>(ceil_div(in.head_dim, columns)));
    launch(on.stream, grid, prefill_threads, kernel, in, y.data, y.stride);
  };
  if (in.head_dim <= 64)
    queue(&prefill_tiles<T, 64>, 64);
  else
    queue(&prefill_tiles<T, 128>, 128);
}

}  // namespace corematching::cuda::detail

// SPDX-License-Identifier: Apache-2.0
// Attention of many query rows on tensor cores, for keys and values in 16 bits. Queries are rounded to the
// cache's type after they are scaled, and weights before they multiply values; scores, sums and outputs are
// binary32. A block takes 64 queries of one head, a warp 16 of them, and walks the keys by 64, with a running
// softmax (FlashAttention-2, Dao 2023). Keys and values take turns in one tile of shared memory; while one of
// them is multiplied, the other is on its way into registers.
#pragma once

#include <mma.h>

#include <type_traits>

#include "corematching/backend/cuda/attention/tensor_tiles.cuh"
#include "corematching/backend/cuda/device.cuh"

namespace corematching::cuda::detail {

/// A storage type as the fragments of matrix products name it.
template <class T>
using fragment_element = std::conditional_t<std::is_same_v<T, f16>, __half, __nv_bfloat16>;

/// Whether this pass of the compiler has products of `T`: bf16 began with compute capability 8.0.
template <class T>
__host__ __device__ constexpr bool compiled_for_tensor_cores() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return std::is_same_v<T, f16>;
#else
  return true;
#endif
}

/// The fragments of a warp: its queries, and 16 x HeadDim outputs.
template <class T, int HeadDim>
struct warp_fragments {
  using element = fragment_element<T>;
  template <class Layout>
  using right = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, element, Layout>;
  using left = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, element, nvcuda::wmma::row_major>;
  using sums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
  static constexpr int parts = HeadDim / fragment_side, stride = staged_tile<T, HeadDim>::stride;

  left queries[parts];
  sums output[parts];
  int rows[sums::num_elements];  // of the elements that this thread has of an accumulator

  /// Which thread has which element is not specified, so it is asked: `scratch` [16, score_stride].
  __device__ void find_rows(float* scratch) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    for (int i = lane; i < fragment_side * fragment_side; i += warp_size)
      scratch[i / fragment_side * score_stride + i % fragment_side] = static_cast<float>(i / fragment_side);
    __syncwarp();
    sums numbers;
    nvcuda::wmma::load_matrix_sync(numbers, scratch, score_stride, nvcuda::wmma::mem_row_major);
#pragma unroll
    for (int i = 0; i < sums::num_elements; ++i) rows[i] = static_cast<int>(numbers.x[i]);
    __syncwarp();
  }
  /// `tile` [16, HeadDim]: this warp's queries.
  __device__ void begin(const element* tile, float* scratch) {
    find_rows(scratch);
#pragma unroll
    for (int d = 0; d < parts; ++d) {
      nvcuda::wmma::load_matrix_sync(queries[d], tile + d * fragment_side, stride);
      nvcuda::wmma::fill_fragment(output[d], 0.0f);
    }
  }
  __device__ void multiply_keys(const element* keys, float* scores) const {
#pragma unroll 2  // enough to overlap; more would take registers that outputs need
    for (int n = 0; n < tensor_keys / fragment_side; ++n) {
      sums products;
      nvcuda::wmma::fill_fragment(products, 0.0f);
#pragma unroll
      for (int d = 0; d < parts; ++d) {
        right<nvcuda::wmma::col_major> key;
        nvcuda::wmma::load_matrix_sync(key, keys + (n * stride + d) * fragment_side, stride);
        nvcuda::wmma::mma_sync(products, queries[d], key, products);
      }
      nvcuda::wmma::store_matrix_sync(scores + n * fragment_side, products, score_stride,
                                      nvcuda::wmma::mem_row_major);
    }
  }
  __device__ void multiply_values(const element* weights, const element* values) {
#pragma unroll 1
    for (int j = 0; j < tensor_keys / fragment_side; ++j) {
      left weight;
      nvcuda::wmma::load_matrix_sync(weight, weights + j * fragment_side, score_stride);
#pragma unroll
      for (int d = 0; d < parts; ++d) {
        right<nvcuda::wmma::row_major> value;
        nvcuda::wmma::load_matrix_sync(value, values + (j * stride + d) * fragment_side, stride);
        nvcuda::wmma::mma_sync(output[d], weight, value, output[d]);
      }
    }
  }
  __device__ void scale_rows(const float* factors) {
    float mine[sums::num_elements];
#pragma unroll
    for (int i = 0; i < sums::num_elements; ++i) mine[i] = factors[rows[i]];
#pragma unroll
    for (int d = 0; d < parts; ++d)
#pragma unroll
      for (int i = 0; i < sums::num_elements; ++i) output[d].x[i] *= mine[i];
  }
  /// y[row] = output for `count` rows, by way of `scratch` [16, score_stride].
  __device__ void write(float* y, index y_stride, int count, float* scratch) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int first = 0; first < parts; first += tensor_keys / fragment_side) {
      __syncwarp();
#pragma unroll
      for (int d = 0; d < tensor_keys / fragment_side; ++d)
        nvcuda::wmma::store_matrix_sync(scratch + d * fragment_side, output[first + d], score_stride,
                                        nvcuda::wmma::mem_row_major);
      __syncwarp();
      for (int row = 0; row < count; ++row)
        for (int c = lane; c < tensor_keys; c += warp_size)
          y[row * y_stride + first * fragment_side + c] = scratch[row * score_stride + c];
    }
  }
};

/// 64 queries of head blockIdx.y, the last ones first, since they see most.
template <class T, int HeadDim>
__global__ void __launch_bounds__(tensor_threads)
    tensor_core_tiles(attention_operands<T> in, float* y, index y_stride) {
  if constexpr (compiled_for_tensor_cores<T>()) {
    using staged = staged_tile<T, HeadDim>;
    using element = fragment_element<T>;
    constexpr int per_warp = fragment_side * score_stride;
    alignas(32) __shared__ uint4 tile[tensor_keys * staged::stride / per_load<T>];
    alignas(32) __shared__ float all_scores[tensor_warps * per_warp];
    alignas(32) __shared__ uint4 all_weights[tensor_warps * per_warp / per_load<T>];
    __shared__ float all_factors[tensor_warps * fragment_side];
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    float* const scores = all_scores + warp * per_warp;
    uint4* const weights = all_weights + warp * per_warp / per_load<T>;
    float* const factors = all_factors + warp * fragment_side;
    const auto* const elements = reinterpret_cast<const element*>(tile);

    const int head = static_cast<int>(blockIdx.y), kv_head = head / in.group;
    const int first_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tensor_keys;
    const int last_query = min(first_query + tensor_keys, in.query_count) - 1;
    const int warp_query = first_query + warp * fragment_side;
    const int seen = in.visible_keys(min(warp_query + lane / 2, last_query));
    const int keys = in.visible_keys(last_query);

    stage_queries<T, HeadDim>(tile, in, head, first_query);
    staged next;
    next.load(in.key(0, kv_head), in.key_stride, keys);
    warp_fragments<T, HeadDim> fragments;
    row_softmax<T> softmax;
    __syncthreads();
    fragments.begin(elements + warp * fragment_side * staged::stride, scores);
    for (int first = 0; first < keys; first += tensor_keys) {
      __syncthreads();  // all warps have read the tile: queries, or the values before
      next.store(tile);
      __syncthreads();
      next.load(in.value(first, kv_head), in.value_stride, keys - first);
      fragments.multiply_keys(elements, scores);
      __syncwarp();
      const float factor = softmax.take(scores, reinterpret_cast<uint2*>(weights), seen - first);
      if (lane % 2 == 0) factors[lane / 2] = factor;
      __syncthreads();  // all warps have read the keys
      next.store(tile);
      __syncthreads();
      if (first + tensor_keys < keys)
        next.load(in.key(first + tensor_keys, kv_head), in.key_stride, keys - first - tensor_keys);
      if (__any_sync(all_lanes, factor != 1)) fragments.scale_rows(factors);
      fragments.multiply_values(reinterpret_cast<const element*>(weights), elements);
    }
    __syncwarp();
    if (lane % 2 == 0) factors[lane / 2] = 1 / softmax.sum;
    __syncwarp();
    fragments.scale_rows(factors);
    const int count = min(fragment_side, last_query + 1 - warp_query);
    fragments.write(y + warp_query * y_stride + index{head} * HeadDim, y_stride, count, scores);
  }
}

/// Whether tensor_core_attention takes this: compute capability as major * 10 + minor.
inline bool suits_tensor_cores(dtype type, index head_dim, bool whole_loads, int compute_capability) {
  const int needed = type == dtype::f16 ? 70 : 80;
  return type != dtype::f32 && (head_dim == 64 || head_dim == 128) && whole_loads &&
         compiled_capability(compute_capability) >= needed;
}

/// y = softmax(q k^T * scale) v; keys and values aligned for 16-byte loads, head_dim 64 or 128.
template <class T>
void tensor_core_attention(const context& on, matrix_view<float, device_space> y,
                           const attention_operands<T>& in) {
  const dim3 grid(static_cast<unsigned>(ceil_div(in.query_count, tensor_keys)),
                  static_cast<unsigned>(in.heads));
  const auto kernel = in.head_dim == 64 ? tensor_core_tiles<T, 64> : tensor_core_tiles<T, 128>;
  launch(on.stream, grid, tensor_threads, kernel, in, y.data, y.stride);
}

}  // namespace corematching::cuda::detail

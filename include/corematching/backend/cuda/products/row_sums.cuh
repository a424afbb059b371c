// SPDX-License-Identifier: Apache-2.0
// Weighted sums of the rows of a matrix with a handful of tokens (the down projection of decode): every
// weight is read once, at the speed of the memory. Each warp owns 16 bytes of every lane's columns and walks
// through some of the rows; the rows are cut into slices so that the whole device is busy with one token. The
// sums of the warps of a block, and then of the slices, are added in a fixed order.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/products/restriction.cuh"
#include "corematching/backend/cuda/products/row_products.cuh"
#include "corematching/backend/cuda/weight_rows.cuh"
#include "corematching/core/elements.cuh"
#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

inline constexpr int sum_warps = 8;
inline constexpr int sum_threads = sum_warps * warp_size;
/// Rows that a warp has under way at once; divides the size of a warp. More would not leave the registers
/// that the sums of many tokens need.
template <int Tokens>
inline constexpr int rows_under_way = Tokens <= 4 ? 4 : 2;
/// Columns of one block.
template <class T>
inline constexpr int sum_columns = warp_size* per_load<T>;
/// Blocks that a processor must be able to hold: 64 registers for a thread, or 128.
template <int Tokens>
inline constexpr int sum_blocks = Tokens <= 2 ? 4 : 2;

/// Where a slice leaves its sums: y itself where there is one slice only, which then may add to it.
struct slice_sums {
  float* data;
  index token_stride;
  index slice_stride;
  product_mode mode;
};

/// 16 bytes of a row from `column` on; beyond `cols`, which `Whole` rules out, zeros.
template <class T, bool Whole>
__device__ inline uint4 load_columns(const T* row, index column, index cols) {
  if constexpr (Whole) return *reinterpret_cast<const uint4*>(row + column);
  union {
    uint4 whole;
    T parts[per_load<T>];
  } bits{};
#pragma unroll
  for (int i = 0; i < per_load<T>; ++i)
    if (column + i < cols) bits.parts[i] = row[column + i];
  return bits.whole;
}

/// sums += x[:, first..last] * w[first..last, columns of the lane]. All lanes of the warp take part.
template <class T, int Tokens, bool Whole>
__device__ void add_rows(float (&sums)[Tokens][per_load<T>], const const_device_rows& x,
                         const restricted_weight& w, index first, index last, index column) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  for (index begin = first; begin < last; begin += warp_size) {
    // Each lane fetches the number of one row and its factors; a lane too many, the last row with factors 0.
    const bool inside = begin + lane < last;
    const index place = inside ? begin + lane : last - 1;
    const int row = static_cast<int>(w.row_at(place));
    float factors[Tokens];
#pragma unroll
    for (int t = 0; t < Tokens; ++t) factors[t] = inside && t < x.rows ? x.data[t * x.stride + place] : 0.0f;
    constexpr int at_once = rows_under_way<Tokens>;
    const int batch = last - begin < warp_size ? static_cast<int>(last - begin) : warp_size;
#pragma unroll 1
    for (int j = 0; j < batch; j += at_once) {
      uint4 loaded[at_once];
#pragma unroll
      for (int u = 0; u < at_once; ++u)
        loaded[u] =
            load_columns<T, Whole>(w.row<T>(__shfl_sync(all_lanes, row, j + u)), column, w.weight.cols);
#pragma unroll
      for (int u = 0; u < at_once; ++u) {
        float weights[per_load<T>];
        widen_loaded<T>(loaded[u], weights);
#pragma unroll
        for (int t = 0; t < Tokens; ++t) {
          const float factor = __shfl_sync(all_lanes, factors[t], j + u);
#pragma unroll
          for (int i = 0; i < per_load<T>; ++i) sums[t][i] += factor * weights[i];
        }
      }
    }
  }
}

/// Adds the sums of a block's warps in the order of the warps and stores them. All threads take part.
template <int Size, int Tokens>
__device__ void store_sums(const float (&sums)[Tokens][Size], float* to, index token_stride, index tokens,
                           index columns, product_mode mode) {
  // Element i of lane l stands at i * pitch + l: neither the writes, which go along the lanes, nor the reads,
  // which go along the columns l * Size + i, meet in a bank.
  constexpr int pitch = warp_size + warp_size / Size;
  __shared__ float shared[sum_warps][Size * pitch];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
#pragma unroll
  for (int t = 0; t < Tokens; ++t) {
#pragma unroll
    for (int i = 0; i < Size; ++i) shared[warp][i * pitch + lane] = sums[t][i];
    __syncthreads();
    if (thread < warp_size * Size && thread < columns && t < tokens) {
      float sum = 0;
#pragma unroll
      for (int v = 0; v < sum_warps; ++v) sum += shared[v][thread % Size * pitch + thread / Size];
      store_product(mode, to + t * token_stride + thread, sum);
    }
    __syncthreads();
  }
}

/// The sums of slice `slice` of `slices` of the rows, in the columns of block `block`. `whole`: all columns
/// can be loaded 16 bytes at a time.
template <class T, int Tokens>
__device__ void sum_rows_of_slice(index slice, index slices, index block, const slice_sums& to,
                                  const const_device_rows& x, const restricted_weight& w, bool whole) {
  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  // In 32 bits, in which dividing takes a fraction of the time.
  const unsigned part = static_cast<unsigned>(slice) * sum_warps + static_cast<unsigned>(warp);
  const unsigned parts = static_cast<unsigned>(slices) * sum_warps;
  const unsigned rows = static_cast<unsigned>(w.count) / parts, more = static_cast<unsigned>(w.count) % parts;
  const index first = part * rows + (part < more ? part : more), last = first + rows + (part < more ? 1 : 0);
  const index block_column = block * sum_columns<T>, cols = w.weight.cols;
  const index column = block_column + lane * per_load<T>;
  float sums[Tokens][per_load<T>] = {};
  if (whole) {  // a lane beyond the last column repeats the last load
    const index last_column = cols - per_load<T>;
    add_rows<T, Tokens, true>(sums, x, w, first, last, column < last_column ? column : last_column);
  } else {
    add_rows<T, Tokens, false>(sums, x, w, first, last, column);
  }
  store_sums(sums, to.data + slice * to.slice_stride + block_column, to.token_stride, x.rows,
             cols - block_column, to.mode);
}

/// A slice for each blockIdx.y, a block of columns for each blockIdx.x.
template <class T, int Tokens>
__global__ void __launch_bounds__(sum_threads, sum_blocks<Tokens>)
    sum_rows_kernel(slice_sums to, const_device_rows x, restricted_weight w, bool whole) {
  wait_for_earlier_kernels();
  sum_rows_of_slice<T, Tokens>(blockIdx.y, gridDim.y, blockIdx.x, to, x, w, whole);
}

inline constexpr int add_slices_threads = 64;

/// y[t, d] = sum over the slices of partial[slice, t, d], in their order, or added to it.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    add_slices_kernel(device_rows y, const float* partial, int slices, product_mode mode) {
  wait_for_earlier_kernels();
  const index elements = y.rows * y.cols;
  const index element = index{blockIdx.x} * Threads + threadIdx.x;
  if (element >= elements) return;
  float sum = 0;
#pragma unroll 8
  for (int s = 0; s < slices; ++s) sum += partial[s * elements + element];
  store_product(mode, y.data + element / y.cols * y.stride + element % y.cols, sum);
}

/// As many slices as make the blocks that the device holds at once, but few enough that each has rows to sum.
template <class T, int Tokens>
index slices_for(const context& on, index rows, index cols) {
  constexpr index fewest_rows = 8 * sum_warps;
  const index blocks = index{on.processors} * sum_blocks<Tokens>;
  const index enough = blocks / ceil_div(cols, sum_columns<T>);
  return std::clamp(std::min(enough, ceil_div(rows, fewest_rows)), index{1}, most_blocks_y);
}

template <class T, int Tokens>
void sum_weighted_rows_of(const context& on, workspace& memory, device_rows y, const_device_rows x,
                          const restricted_weight& w, product_mode mode) {
  const index slices = slices_for<T, Tokens>(on, w.count, y.cols);
  const bool whole = has_aligned_rows(w.weight) && y.cols % per_load<T> == 0;
  const dim3 grid(static_cast<unsigned>(ceil_div(y.cols, sum_columns<T>)), static_cast<unsigned>(slices));
  slice_sums to{y.data, y.stride, 0, mode};
  if (slices > 1)
    to = {memory.at_least<float>(on.stream, slices * y.rows * y.cols), y.cols, y.rows * y.cols,
          product_mode::replace};
  launch_early(on, grid, dim3(sum_threads), sum_rows_kernel<T, Tokens>, to, x, w, whole);
  if (slices == 1) return;
  const dim3 adding(static_cast<unsigned>(ceil_div(y.rows * y.cols, add_slices_threads)));
  launch_early(on, adding, dim3(add_slices_threads), add_slices_kernel<add_slices_threads>, y, to.data,
               static_cast<int>(slices), mode);
}

/// y[t] = sum over i of x[t, i] * w[n], n the i-th selected neuron; y [T, D], x [T, selected], w [N, D], T at
/// most largest_decode_batch, or added to it. Without neurons the sum is 0.
inline void sum_weighted_rows(const context& on, workspace& memory, device_rows y, const_device_rows x,
                              const stored_view<device_space>& w, const neurons& selection,
                              product_mode mode = product_mode::replace) {
  assert(y.rows == x.rows && y.cols == w.cols && x.cols == count_of(selection, w.rows));
  if (y.rows == 0 || y.cols == 0) return;
  visit_elements(w.type, [&]<class T>() {
    visit_tokens(x.rows, [&](auto tokens) {
      sum_weighted_rows_of<T, tokens>(on, memory, y, x, restricted_weight(w, selection), mode);
    });
  });
}

}  // namespace corematching::cuda::detail

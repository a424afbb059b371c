// SPDX-License-Identifier: Apache-2.0
// Weights on the device: uploaded as they are stored, or converted to another type, and transposed, by
// kernels that take the raw bytes of a few rows at a time. Rows begin at multiples of 16 bytes. All
// functions return when the host's memory is no longer needed.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/products/gemm.cuh"
#include "corematching/backend/cuda/weight_rows.cuh"
#include "corematching/core/elements.cuh"
#include "corematching/core/error.hpp"
#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

/// Bytes of the source that a conversion has on the device at a time.
inline constexpr index conversion_bytes = index{64} << 20;

/// A matrix of `type` in new device memory, and the memory.
struct device_weight {
  std::shared_ptr<buffer<std::byte>> memory;
  mutable_stored_view<device_space> view;

  device_weight(const context& on, dtype type, index rows, index cols)
      : device_weight(on.stream, on.stream, type, rows, cols) {}
  /// Filled on the stream `filler`, for the stream `user`.
  device_weight(cudaStream_t filler, cudaStream_t user, dtype type, index rows, index cols) {
    const index row_bytes = aligned_row_bytes(type, cols);
    memory = std::make_shared<buffer<std::byte>>(filler, rows * row_bytes, user);
    view = {memory->data(), type, rows, cols, row_bytes};
  }
  weight<device_space> placed() const { return {view, memory}; }
};

/// Queues a copy of rows of `width` bytes. Without gaps on both sides they are one piece, which is faster.
inline void upload_rows(cudaStream_t stream, std::byte* to, index to_row_bytes, const std::byte* from,
                        index from_row_bytes, index width, index rows) {
  if (width == 0 || rows == 0) return;
  const auto size = [](index bytes) { return static_cast<std::size_t>(bytes); };
  if (rows == 1 || (to_row_bytes == width && from_row_bytes == width)) {
    COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(to, from, size(width * rows), cudaMemcpyHostToDevice, stream));
  } else {
    COREMATCHING_CUDA_CHECK(cudaMemcpy2DAsync(to, size(to_row_bytes), from, size(from_row_bytes), size(width),
                                              size(rows), cudaMemcpyHostToDevice, stream));
  }
}

/// The weight in device memory, stored as it was: copied on the stream `filler`, whatever `user`, the stream
/// that is to compute with it, is doing.
inline weight<device_space> placed_weight(cudaStream_t filler, cudaStream_t user,
                                          const weight<host_space>& host) {
  const stored_view<host_space>& from = host.view;
  require_on_device(from.type);
  const device_weight result(filler, user, from.type, from.rows, from.cols);
  const index planes = has_planes(from.type) ? 2 : 1;
  const auto width = static_cast<index>(bytes_of(from.type, static_cast<std::size_t>(from.cols))) / planes;
  const index from_pitch = from.row_bytes / planes, pitch = result.view.row_bytes / planes;
  for (index plane = 0; plane < planes; ++plane)
    upload_rows(filler, result.view.data + plane * from.rows * pitch, pitch,
                from.data + plane * from.rows * from_pitch, from_pitch, width, from.rows);
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(filler));
  return result.placed();
}

/// A vector in device memory, copied as a weight is.
inline buffer<float> placed_vector(cudaStream_t filler, cudaStream_t user, vector_view<const float> host) {
  buffer<float> result(filler, host.size, user);
  if (host.size == 0) return result;
  COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(result.data(), host.data,
                                          static_cast<std::size_t>(host.size) * sizeof(float),
                                          cudaMemcpyHostToDevice, filler));
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(filler));
  return result;
}

/// Row-major elements on the device, rows `stride` elements apart.
template <class T>
using element_rows = matrix_view<T, device_space>;

/// Notes where in the result a number stands that it cannot hold, if that is the first such place.
template <class To>
__device__ void check_element(float value, unsigned long long place, unsigned long long* refused) {
  if (!(fabsf(value) <= format_traits<To>::largest))
    atomicMin(refused, place);  // a NaN compares with nothing
}

inline constexpr int convert_threads = 256;

/// to[first + i] = from[i]
template <class From, class To>
__global__ void __launch_bounds__(convert_threads)
    convert_kernel(element_rows<To> to, element_rows<const From> from, index first,
                   unsigned long long* refused) {
  const index column = index{blockIdx.x} * convert_threads + threadIdx.x;
  if (column >= from.cols) return;
  for (index i = blockIdx.y; i < from.rows; i += gridDim.y) {
    const float value = widened(from.data[i * from.stride + column]);
    check_element<To>(value, static_cast<unsigned long long>((first + i) * to.cols + column), refused);
    to.data[(first + i) * to.stride + column] = narrowed<To>(value);
  }
}

/// Rows of numbers into two planes.
template <class Q>
__global__ void __launch_bounds__(convert_threads)
    split_kernel(mutable_stored_view<device_space> to, stored_view<device_space> from) {
  const index column = index{blockIdx.x} * convert_threads + threadIdx.x;
  if (column >= from.cols) return;
  const index pitch = plane_pitch(to);
  for (index i = blockIdx.y; i < from.rows; i += gridDim.y) {
    const auto* row = reinterpret_cast<const typename Q::whole*>(from.data + i * from.row_bytes);
    const auto bytes = Q::split(row[column]);
    to.data[i * pitch + column] = std::byte{bytes[0]};
    to.data[(to.rows + i) * pitch + column] = std::byte{bytes[1]};
  }
}

inline constexpr int tile_side = 32;
inline constexpr int tile_rows = 8;  // of threads

/// to[:, first + i] = from[i], tile by tile, so that rows of both sides are read and written along
/// themselves.
template <class From, class To>
__global__ void __launch_bounds__(tile_side* tile_rows)
    transpose_kernel(element_rows<To> to, element_rows<const From> from, index first,
                     unsigned long long* refused) {
  __shared__ float tile[tile_side][tile_side + 1];  // the columns of a tile lie in different banks
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const index left = index{blockIdx.x} * tile_side;
  for (index top = index{blockIdx.y} * tile_side; top < from.rows; top += index{gridDim.y} * tile_side) {
    for (int i = y; i < tile_side; i += tile_rows)
      if (top + i < from.rows && left + x < from.cols)
        tile[i][x] = widened(from.data[(top + i) * from.stride + left + x]);
    __syncthreads();
    for (int i = y; i < tile_side; i += tile_rows)
      if (left + i < from.cols && top + x < from.rows) {
        const index row = left + i, column = first + top + x;
        check_element<To>(tile[x][i], static_cast<unsigned long long>(row * to.cols + column), refused);
        to.data[row * to.stride + column] = narrowed<To>(tile[x][i]);
      }
    __syncthreads();  // the tile may be written again
  }
}

/// Queues the conversion of rows that are on the device: source rows from `first` on.
template <class From, class To>
void convert_rows(const context& on, const mutable_stored_view<device_space>& result,
                  element_rows<const From> from, index first, bool transposed, unsigned long long* refused) {
  const element_rows<To> to{reinterpret_cast<To*>(result.data), result.rows, result.cols,
                            result.row_bytes / index{sizeof(To)}};
  const index width = transposed ? tile_side : convert_threads, height = transposed ? tile_side : 1;
  const dim3 grid(static_cast<unsigned>(ceil_div(from.cols, width)),
                  static_cast<unsigned>(std::min(ceil_div(from.rows, height), most_blocks_y)));
  if (transposed) {
    launch(on.stream, grid, dim3(tile_side, tile_rows), transpose_kernel<From, To>, to, from, first, refused);
  } else {
    launch(on.stream, grid, dim3(convert_threads), convert_kernel<From, To>, to, from, first, refused);
  }
}

/// Throws for the number of the source that stands at `place` of the result.
template <class From, class To>
[[noreturn]] void refuse(const stored_view<host_space>& source, bool transposed, index place) {
  const index cols = transposed ? source.rows : source.cols;
  const index i = transposed ? place % cols : place / cols, j = transposed ? place / cols : place % cols;
  From stored;
  std::memcpy(&stored, source.data + i * source.row_bytes + j * index{sizeof(From)}, sizeof stored);
  const float value = to_float(stored);
  require(std::isfinite(value), "it holds ", value, ", which is no finite number");
  fail("it holds ", value, ", beyond the ", format_traits<To>::largest, " that ", name_of(dtype_of<To>),
       " can store");
}

template <class From, class To>
weight<device_space> converted_elements(const context& on, const stored_view<host_space>& source,
                                        bool transposed, index part_bytes) {
  constexpr unsigned long long none = std::numeric_limits<unsigned long long>::max();
  const device_weight result(on, dtype_of<To>, transposed ? source.cols : source.rows,
                             transposed ? source.rows : source.cols);
  const index width = source.cols * index{sizeof(From)};
  const index slice =
      std::clamp(part_bytes / std::max(width, index{1}), index{1}, std::max(source.rows, index{1}));
  buffer<From> staged(on.stream, slice * source.cols);
  buffer<unsigned long long> refused(on.stream, 1);
  unsigned long long first_refused = none;
  const auto copy_refused = [&](void* to, const void* from, cudaMemcpyKind kind) {
    COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(to, from, sizeof none, kind, on.stream));
  };
  copy_refused(refused.data(), &first_refused, cudaMemcpyHostToDevice);
  for (index first = 0; first < source.rows; first += slice) {
    const index rows = std::min(slice, source.rows - first);
    upload_rows(on.stream, reinterpret_cast<std::byte*>(staged.data()), width,
                source.data + first * source.row_bytes, source.row_bytes, width, rows);
    convert_rows<From, To>(on, result.view, {staged.data(), rows, source.cols, source.cols}, first,
                           transposed, refused.data());
  }
  copy_refused(&first_refused, refused.data(), cudaMemcpyDeviceToHost);
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(on.stream));
  if (first_refused != none) refuse<From, To>(source, transposed, static_cast<index>(first_refused));
  return result.placed();
}

/// Numbers on the device, in two planes.
template <number_plane_format Q>
weight<device_space> split_weight(const context& on, const stored_view<device_space>& whole) {
  const device_weight result(on, dtype_of<Q>, whole.rows, whole.cols);
  const dim3 grid(static_cast<unsigned>(ceil_div(whole.cols, convert_threads)),
                  static_cast<unsigned>(std::min(whole.rows, most_blocks_y)));
  launch(on.stream, grid, dim3(convert_threads), split_kernel<Q>, result.view, whole);
  return result.placed();
}

/// The weight, or its transposed, stored as `target` in device memory. Refuses numbers that `target` cannot
/// hold, naming the first one in the order of the result, and block formats on either side. The source's rows
/// are on the device `part_bytes` at a time.
inline weight<device_space> converted_weight(const context& on, const stored_view<host_space>& source,
                                             dtype target, bool transposed,
                                             index part_bytes = conversion_bytes) {
  require(is_element(source.type), "the CUDA backend converts weights that are f32, f16 or bf16, not ",
          name_of(source.type));
  require_on_device(target);
  if (has_planes(target)) {
    const auto whole = converted_weight(on, source, whole_of(target), transposed, part_bytes);
    return visit_planes_on_device(target, [&]<class Q>() { return split_weight<Q>(on, whole.view); });
  }
  return visit_elements(source.type, [&]<class From>() {
    return visit_elements(
        target, [&]<class To>() { return converted_elements<From, To>(on, source, transposed, part_bytes); });
  });
}

}  // namespace corematching::cuda::detail

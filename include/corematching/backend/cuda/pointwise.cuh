// SPDX-License-Identifier: Apache-2.0
// Elementwise operations on rows of activations, four elements at a time where memory is aligned for it.
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "corematching/backend/cuda/activations.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/core/elements.cuh"
#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

inline constexpr int pointwise_threads = 256;

/// `Width` floats, 1 or 4, from or to an address that suits the load.
template <int Width>
struct floats {
  float values[Width];

  __device__ static floats load(const float* from) {
    if constexpr (Width == 1)
      return {{*from}};
    else {
      const float4 four = *reinterpret_cast<const float4*>(from);
      return {{four.x, four.y, four.z, four.w}};
    }
  }
  __device__ void store(float* to) const {
    if constexpr (Width == 1)
      *to = values[0];
    else
      *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
  }
};

/// Whether every row begins at a multiple of 16 bytes and is a whole number of 16-byte loads.
template <class T>
bool takes_fours(const matrix_view<T, device_space>& m) {
  return is_aligned(m.data) && m.cols % 4 == 0 && (m.stride % 4 == 0 || m.rows == 1);
}
inline bool takes_fours(const vector_view<const float, device_space>& v) {
  return is_aligned(v.data) && v.size % 4 == 0;
}

/// Calls `apply(row, column)` for every `Width`th column of every row: rows are the grid's x.
template <int Width, class Apply>
__global__ void __launch_bounds__(pointwise_threads) for_each_place(Apply apply, index cols) {
  wait_for_earlier_kernels();
  const index column = (index{blockIdx.y} * pointwise_threads + threadIdx.x) * Width;
  if (column < cols) apply(index{blockIdx.x}, column);
}

template <int Width, class Apply>
void queue_for_each(const context& on, index rows, index cols, const Apply& apply) {
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(ceil_div(cols, index{pointwise_threads} * Width)));
  launch_early(on, grid, pointwise_threads, for_each_place<Width, Apply>, apply, cols);
}

template <activation Act, int Width>
struct activate_places {
  float* x;
  index stride;
  __device__ void operator()(index row, index column) const {
    float* const place = x + row * stride + column;
    floats<Width> part = floats<Width>::load(place);
#pragma unroll
    for (float& value : part.values) value = activated<Act>(value);
    part.store(place);
  }
};

struct add_to {
  __device__ void operator()(float& to, float x) const { to += x; }
};
struct multiply_by {
  __device__ void operator()(float& to, float x) const { to *= x; }
};

template <class Combine, int Width>
struct combine_places {
  float* y;
  index y_stride;
  const float* x;
  index x_stride;
  __device__ void operator()(index row, index column) const {
    float* const place = y + row * y_stride + column;
    floats<Width> result = floats<Width>::load(place);
    const auto part = floats<Width>::load(x + row * x_stride + column);
#pragma unroll
    for (int i = 0; i < Width; ++i) Combine()(result.values[i], part.values[i]);
    result.store(place);
  }
};

template <class Combine>
void combine(const context& on, matrix_view<float, device_space> y,
             matrix_view<const float, device_space> x) {
  assert(y.rows == x.rows && y.cols == x.cols);
  if (takes_fours(y) && takes_fours(x))
    queue_for_each<4>(on, y.rows, y.cols, combine_places<Combine, 4>{y.data, y.stride, x.data, x.stride});
  else
    queue_for_each<1>(on, y.rows, y.cols, combine_places<Combine, 1>{y.data, y.stride, x.data, x.stride});
}

/// sums[n] += |x[row, n]|, row after row: a thread forms the whole sum.
struct magnitude_places {
  float* sums;
  const float* x;
  index stride;
  const std::int32_t* rows;  // null: the first ones
  index count;
  __device__ void operator()(index, index column) const {
    float sum = sums[column];
    for (index i = 0; i < count; ++i)
      sum += fabsf(x[(rows == nullptr ? i : index{rows[i]}) * stride + column]);
    sums[column] = sum;
  }
};

/// x[n] = 0 in the gap before chosen[i], or behind the last of them.
struct gap_places {
  float* x;
  index size;
  const std::int32_t* chosen;
  index count;
  __device__ void operator()(index, index i) const {
    const index end = i == count ? size : index{chosen[i]};
    for (index n = i == 0 ? 0 : index{chosen[i - 1]} + 1; n < end; ++n) x[n] = 0;
  }
};

/// x = act(x)
inline void activate(const context& on, matrix_view<float, device_space> x, activation act) {
  visit_activation(act, [&]<activation Act>(std::integral_constant<activation, Act>) {
    if (takes_fours(x))
      queue_for_each<4>(on, x.rows, x.cols, activate_places<Act, 4>{x.data, x.stride});
    else
      queue_for_each<1>(on, x.rows, x.cols, activate_places<Act, 1>{x.data, x.stride});
  });
}

/// y += x
inline void add(const context& on, matrix_view<float, device_space> y,
                matrix_view<const float, device_space> x) {
  combine<add_to>(on, y, x);
}

/// y *= x
inline void multiply(const context& on, matrix_view<float, device_space> y,
                     matrix_view<const float, device_space> x) {
  combine<multiply_by>(on, y, x);
}

/// sums[n] += sum over the rows (all where there is no list) of |x[row, n]|
inline void add_magnitudes(const context& on, vector_view<float, device_space> sums,
                           matrix_view<const float, device_space> x,
                           const std::optional<index_view<device_space>>& rows) {
  assert(sums.size == x.cols);
  const index counted = rows ? rows->size : x.rows;
  if (counted == 0) return;
  queue_for_each<1>(on, 1, x.cols,
                    magnitude_places{sums.data, x.data, x.stride, rows ? rows->data : nullptr, counted});
}

/// x[n] = 0 for all n that are not among `chosen`, which ascend.
inline void zero_others(const context& on, vector_view<float, device_space> x,
                        index_view<device_space> chosen) {
  queue_for_each<1>(on, 1, chosen.size + 1, gap_places{x.data, x.size, chosen.data, chosen.size});
}

/// y = x; they do not overlap.
inline void copy(const context& on, matrix_view<float, device_space> y,
                 matrix_view<const float, device_space> x) {
  assert(y.rows == x.rows && y.cols == x.cols);
  if (x.rows == 0 || x.cols == 0) return;
  const auto bytes = [](index elements) { return static_cast<std::size_t>(elements) * sizeof(float); };
  COREMATCHING_CUDA_CHECK(cudaMemcpy2DAsync(y.data, bytes(y.stride), x.data, bytes(x.stride), bytes(x.cols),
                                            static_cast<std::size_t>(x.rows), cudaMemcpyDeviceToDevice,
                                            on.stream));
}

}  // namespace corematching::cuda::detail

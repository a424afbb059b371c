// SPDX-License-Identifier: Apache-2.0
// Normalisations of rows, one block each. A row is read once for each sum, which after the first time comes
// from a cache; the variance is that of differences from the mean, so that nothing cancels.
#pragma once

#include <cassert>
#include <cmath>

#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/pointwise.cuh"
#include "corematching/core/warp.cuh"

namespace corematching::cuda::detail {

/// The block's sum of term(place, value) over the elements of a row.
template <int Threads, int Width, class Term>
__device__ float row_sum(const float* x, index cols, const Term& term) {
  float sum = 0;
  for (index j = index{threadIdx.x} * Width; j < cols; j += Threads * Width) {
    const auto part = floats<Width>::load(x + j);
#pragma unroll
    for (const float value : part.values) sum += term(value);
  }
  return block_sum<Threads>(sum);
}

struct norm_operands {
  float* y;
  index y_stride;
  const float* x;
  index x_stride;
  const float* weight;
  const float* bias;  // of layer_norm
  index cols;
  float eps;
};

template <int Threads, int Width, bool Centred>
__global__ void __launch_bounds__(Threads) normalise_rows(norm_operands in) {
  wait_for_earlier_kernels();
  const float* const x = in.x + blockIdx.x * in.x_stride;
  float* const y = in.y + blockIdx.x * in.y_stride;
  const auto size = static_cast<float>(in.cols);
  float mean = 0;
  if constexpr (Centred) mean = row_sum<Threads, Width>(x, in.cols, [](float value) { return value; }) / size;
  const float squares =
      row_sum<Threads, Width>(x, in.cols, [mean](float value) { return (value - mean) * (value - mean); });
  const float scale = 1 / sqrtf(squares / size + in.eps);
  for (index j = index{threadIdx.x} * Width; j < in.cols; j += Threads * Width) {
    auto part = floats<Width>::load(x + j);
    const auto weight = floats<Width>::load(in.weight + j);
    [[maybe_unused]] floats<Width> bias{};
    if constexpr (Centred) bias = floats<Width>::load(in.bias + j);
#pragma unroll
    for (int i = 0; i < Width; ++i)
      part.values[i] = (part.values[i] - mean) * scale * weight.values[i] + bias.values[i];
    part.store(y + j);
  }
}

/// Few long rows get large blocks, since only as many processors as rows take part.
template <bool Centred>
void queue_norm(const context& on, index rows, bool fours, const norm_operands& in) {
  const auto queue = [&](int threads, auto kernel) {
    launch_early(on, static_cast<unsigned>(rows), threads, kernel, in);
  };
  const bool large = rows < on.processors && in.cols >= 2048;
  if (fours && large) return queue(1024, &normalise_rows<1024, 4, Centred>);
  if (fours) return queue(256, &normalise_rows<256, 4, Centred>);
  if (large) return queue(1024, &normalise_rows<1024, 1, Centred>);
  queue(256, &normalise_rows<256, 1, Centred>);
}

/// y = x / sqrt(mean(x^2) + eps) * weight; y may be x.
inline void rms_norm(const context& on, matrix_view<float, device_space> y,
                     matrix_view<const float, device_space> x, vector_view<const float, device_space> weight,
                     float eps) {
  assert(y.rows == x.rows && y.cols == x.cols && weight.size == x.cols);
  const bool fours = takes_fours(y) && takes_fours(x) && takes_fours(weight);
  queue_norm<false>(on, x.rows, fours,
                    {y.data, y.stride, x.data, x.stride, weight.data, nullptr, x.cols, eps});
}

/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias; y may be x.
inline void layer_norm(const context& on, matrix_view<float, device_space> y,
                       matrix_view<const float, device_space> x,
                       vector_view<const float, device_space> weight,
                       vector_view<const float, device_space> bias, float eps) {
  assert(y.rows == x.rows && y.cols == x.cols && weight.size == x.cols && bias.size == x.cols);
  const bool fours = takes_fours(y) && takes_fours(x) && takes_fours(weight) && takes_fours(bias);
  queue_norm<true>(on, x.rows, fours,
                   {y.data, y.stride, x.data, x.stride, weight.data, bias.data, x.cols, eps});
}

}  // namespace corematching::cuda::detail

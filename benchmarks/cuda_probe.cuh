// SPDX-License-Identifier: Apache-2.0
// How fast a device reads memory and multiplies matrices at this moment: the limits of decoding and of
// prefill.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <vector>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/launch.cuh"
#include "corematching/core/warp.cuh"
#include "measured_passes.hpp"
#include "spread.hpp"

namespace corematching::bench {

namespace detail {

inline constexpr int probe_threads = 512;
/// Fills with bf16 numbers of magnitudes from 1 to 2 in no order: products of zeros need less power, so that
/// a device multiplies them faster than any weights.
template <int Threads>
__global__ void __launch_bounds__(Threads) fill_with_numbers(uint4* to, index count) {
  for (index i = index{blockIdx.x} * Threads + threadIdx.x; i < count; i += index{gridDim.x} * Threads) {
    auto state = static_cast<unsigned>(i) * 2654435761u + 1;
    const auto next = [&state] {
      state = state * 1664525u + 1013904223u;
      return ((state ^ state >> 15) & 0x807f807fu) | 0x3f803f80u;
    };
    const unsigned x = next(), y = next(), z = next(), w = next();
    to[i] = make_uint4(x, y, z, w);
  }
}

/// Reads `count` elements, a multiple of Loads * all threads, and keeps no more than their parity. Each
/// thread has Loads loads of 16 bytes in flight at once.
template <int Loads>
__global__ void read_all(const uint4* from, index count, unsigned* sink) {
  const index thread = index{blockIdx.x} * blockDim.x + threadIdx.x, all = index{gridDim.x} * blockDim.x;
  unsigned mixed = 0;
  for (index i = thread; i + (Loads - 1) * all < count; i += Loads * all) {
    uint4 loaded[Loads];
#pragma unroll
    for (int k = 0; k < Loads; ++k) loaded[k] = from[i + k * all];
#pragma unroll
    for (int k = 0; k < Loads; ++k) mixed ^= loaded[k].x ^ loaded[k].y ^ loaded[k].z ^ loaded[k].w;
  }
  if (mixed == 0x5bd1e995u) *sink = mixed;  // practically never, which the compiler cannot know
}

}  // namespace detail

inline dim3 probe_grid(int processors) {
  return dim3(static_cast<unsigned>(4 * processors));
}

inline void fill_with_numbers(cudaStream_t stream, int processors, cuda::buffer<uint4>& block) {
  cuda::detail::launch(stream, probe_grid(processors), dim3(detail::probe_threads),
                       detail::fill_with_numbers<detail::probe_threads>, block.data(), block.size());
}

class cuda_probe {
 public:
  /// On `stream` of a device with so many processors, which the calling thread uses.
  cuda_probe(cudaStream_t stream, int processors)
      : stream_(stream),
        processors_(processors),
        block_(stream, elements),
        sink_(stream, 1),
        start_(cuda::make_event()),
        end_(cuda::make_event()),
        cublas_(cuda::make_cublas(stream)) {
    fill_with_numbers(stream, processors, block_);
  }

  machine_rates operator()() { return {read_bytes_per_second(), product_flops_per_second()}; }

  /// Median of some passes over a block far larger than any cache.
  double read_bytes_per_second() {
    constexpr int loads = 8;
    const dim3 grid = probe_grid(processors_);
    const index round = index{loads} * grid.x * detail::probe_threads, count = elements / round * round;
    return median_rate(static_cast<double>(count) * sizeof(uint4), [&] {
      cuda::detail::launch(stream_, grid, dim3(detail::probe_threads), detail::read_all<loads>, block_.data(),
                           count, sink_.data());
    });
  }

  /// Of the largest product of a prompt of 640 tokens at 7B shape, in bf16 with binary32 sums, by cuBLAS
  /// alone.
  double product_flops_per_second() {
    constexpr int tokens = 640, in = 4096, out = 11008;
    const auto* w = block_.data();
    const auto* x = w + index{in} * out / 8;
    auto* y = block_.data() + index{in} * (out + tokens) / 8;
    const float one = 1, zero = 0;
    return median_rate(2.0 * tokens * in * out, [&] {
      COREMATCHING_CUDA_CHECK(cublasGemmEx(cublas_.get(), CUBLAS_OP_T, CUBLAS_OP_N, out, tokens, in, &one, w,
                                           CUDA_R_16BF, in, x, CUDA_R_16BF, in, &zero, y, CUDA_R_32F, out,
                                           CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    });
  }

  /// `work` done in each call of `queue`, per second: median of some calls.
  template <class Queue>
  double median_rate(double work, Queue&& queue) {
    constexpr int warm_up = 3, passes = 11;
    std::vector<double> rates;
    for (int i = 0; i < warm_up + passes; ++i) {
      COREMATCHING_CUDA_CHECK(cudaEventRecord(start_.get(), stream_));
      queue();
      COREMATCHING_CUDA_CHECK(cudaEventRecord(end_.get(), stream_));
      COREMATCHING_CUDA_CHECK(cudaEventSynchronize(end_.get()));
      float milliseconds = 0;
      COREMATCHING_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start_.get(), end_.get()));
      if (i >= warm_up) rates.push_back(work / (1e-3 * static_cast<double>(milliseconds)));
    }
    return spread_of(rates).median;
  }

 private:
  static constexpr index elements = index{64} << 20;  // 1 GiB

  cudaStream_t stream_;
  int processors_;
  cuda::buffer<uint4> block_;
  cuda::buffer<unsigned> sink_;
  cuda::event_handle start_, end_;
  cuda::cublas_handle cublas_;
};

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
// The k places of a row with the largest weighted magnitudes in device memory, by the rule of
// select/top_k.hpp and with the same result to the last tie. One block.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/core_neurons.cuh"
#include "corematching/select/row_keys.cuh"
#include "corematching/select/top_cut.cuh"

namespace corematching::select::device {
namespace detail {

template <int Threads, int Reads>
__global__ void __launch_bounds__(Threads)
    top_k(const float* x, const float* weights, index size, index wanted, std::int32_t* chosen) {
  __shared__ cut_finder<Threads> finder;
  // One more than the key: zeros are chosen too, and 0 is no key.
  const auto keys = keys_of_row<Threads, Reads>(size, [x, weights](index n) {
    return score_key(weights == nullptr ? x[n] : fabsf(x[n]) * weights[n]) + 1;
  });
  const key_cut cut = finder.find(keys, key_bits<float>, wanted);
  write_chosen(keys, cut, finder, chosen, nullptr);
}

}  // namespace detail

/// The `wanted` places n, 1 at least and `size` at most, with the largest |x[n]| weights[n], ascending into
/// chosen[wanted]; ties go to the lower place. Without weights (null) all are 1; otherwise each is >= 0. A
/// NaN is larger than any number.
inline void top_k(cudaStream_t stream, const float* x, const float* weights, index size, index wanted,
                  std::int32_t* chosen) {
  visit_reads<detail::choosing_threads>(size, [&](auto reads) {
    cuda::detail::launch(stream, dim3(1), dim3(detail::choosing_threads),
                         detail::top_k<detail::choosing_threads, reads>, x, weights, size, wanted, chosen);
  });
}

}  // namespace corematching::select::device

// SPDX-License-Identifier: Apache-2.0
// What core tokens are ranked by, in device memory: m(x) = |Γ(x) ∩ C|, a warp for each token. Ranking and the
// threshold are a matter of some hundred integers and stay on the host (select/core_tokens.hpp).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/core/warp.cuh"
#include "corematching/select/bitset.hpp"

namespace corematching::select::device {
namespace detail {

inline constexpr int overlap_threads = 128;

template <int Threads>
__global__ void __launch_bounds__(Threads) count_common(const word* bits, index tokens, index bits_stride,
                                                        const word* set, index words, std::int32_t* scores) {
  constexpr int warps = Threads / cuda::detail::warp_size;
  const int lane = static_cast<int>(threadIdx.x) % cuda::detail::warp_size;
  const index token = index{blockIdx.x} * warps + static_cast<int>(threadIdx.x) / cuda::detail::warp_size;
  int common = 0;
  if (token < tokens) {
    const word* row = bits + token * bits_stride;
#pragma unroll 4
    for (index w = lane; w < words; w += cuda::detail::warp_size) common += __popcll(row[w] & set[w]);
  }
  common = cuda::detail::warp_sum(common);
  if (lane == 0 && token < tokens) scores[token] = common;
}

}  // namespace detail

/// scores[x] = |bits[x] ∩ set| for each of `tokens` rows of `words` words, `bits_stride` words apart.
inline void overlap(cudaStream_t stream, const word* bits, index tokens, index bits_stride, const word* set,
                    index words, std::int32_t* scores) {
  const index tokens_per_block = detail::overlap_threads / cuda::detail::warp_size;
  cuda::detail::launch(stream, dim3(static_cast<unsigned>(cuda::detail::ceil_div(tokens, tokens_per_block))),
                       dim3(detail::overlap_threads), detail::count_common<detail::overlap_threads>, bits,
                       tokens, bits_stride, set, words, scores);
}

}  // namespace corematching::select::device

// SPDX-License-Identifier: Apache-2.0
// Activated neurons of tokens in device memory: a block walks the row of one token, each warp packs 256
// neurons at a time with ballots. Sets of bits are those of select/bitset.hpp.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/core/warp.cuh"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/bitset.hpp"

namespace corematching::select::device {

/// Where a first activation that is no finite number was found, in the order of tokens and then of neurons.
/// One integer, so that the first of several is the smallest: token, neuron, and whether it is NaN.
struct activation_place {
  static constexpr unsigned long long none = ~0ull;

  unsigned long long code = none;

  COREMATCHING_HOST_DEVICE static constexpr unsigned long long code_of(index token, index neuron, bool nan) {
    return static_cast<unsigned long long>(token) << 32 | static_cast<unsigned long long>(neuron) << 1 |
           (nan ? 1u : 0u);
  }
  constexpr bool found() const { return code != none; }
  constexpr index token() const { return static_cast<index>(code >> 32); }
  constexpr index neuron() const { return static_cast<index>(code >> 1 & 0x7fffffffu); }
  constexpr bool is_nan() const { return (code & 1u) != 0; }
};

namespace detail {

inline constexpr int marking_threads = 256;

/// A warp's lane holds neurons first + lane, first + lane + 32, ... of `row`.
template <class T, int Loads>
__device__ inline void load_activations(const T* row, index first, index neurons, T (&to)[Loads]) {
#pragma unroll
  for (int i = 0; i < Loads; ++i) {
    const index n = first + i * cuda::detail::warp_size;
    to[i] = n < neurons ? row[n] : T{};
  }
}

template <class T>
__global__ void __launch_bounds__(marking_threads)
    mark_activated(const T* activation, index neurons, index stride, word* bits, index bits_stride,
                   std::int32_t* counts, index first_token, unsigned long long* first_not_finite) {
  constexpr int loads = 8, words = loads / 2;  // of a warp in flight, and what they are packed into
  constexpr index span = words * bits_per_word;
  const int lane = static_cast<int>(threadIdx.x) % cuda::detail::warp_size;
  const int warp = static_cast<int>(threadIdx.x) / cuda::detail::warp_size;
  const index token = blockIdx.x;
  const T* row = activation + token * stride;
  word* row_bits = bits + token * bits_stride;

  int activated = 0;  // by the neurons of this warp
  for (index first = warp * span; first < neurons;
       first += marking_threads / cuda::detail::warp_size * span) {
    T values[loads];
    load_activations(row, first + lane, neurons, values);
    word mine = 0;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      if (magnitude_key(values[i]) >= infinite_key<T>) {
        const index n = first + lane + i * cuda::detail::warp_size;
        atomicMin(first_not_finite, activation_place::code_of(first_token + token, n,
                                                              magnitude_key(values[i]) > infinite_key<T>));
      }
      const unsigned positive = __ballot_sync(cuda::detail::all_lanes, activation_key(values[i]) > 0);
      activated += __popc(positive);
      if (lane == i / 2) mine |= word{positive} << (i % 2 * 32);
    }
    const index place = first / bits_per_word + lane;
    if (lane < words && place < words_for(neurons)) row_bits[place] = mine;
  }
  const int total = cuda::detail::block_sum<marking_threads>(lane == 0 ? activated : 0);
  if (threadIdx.x == 0) counts[token] = total;
}

}  // namespace detail

/// Γ(x) = { n : a_n(x) > 0 } of each row of `activation` [tokens, neurons] (rows `stride` elements apart):
/// its bits into row x of `bits` (rows `bits_stride` words apart), |Γ(x)| into counts[tokens]. An activation
/// that is NaN or infinite lowers *first_not_finite to the code of its activation_place, where rows count
/// from `first_token`.
template <class T>
void activated_neurons(cudaStream_t stream, const T* activation, index tokens, index neurons, index stride,
                       word* bits, index bits_stride, std::int32_t* counts,
                       unsigned long long* first_not_finite, index first_token = 0) {
  cuda::detail::launch(stream, dim3(static_cast<unsigned>(tokens)), dim3(detail::marking_threads),
                       detail::mark_activated<T>, activation, neurons, stride, bits, bits_stride, counts,
                       first_token, first_not_finite);
}

}  // namespace corematching::select::device

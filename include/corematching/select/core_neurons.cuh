// SPDX-License-Identifier: Apache-2.0
// Core neurons in device memory, by the rules of select/core_neurons.hpp and with the same result to the last
// tie: of each token the neurons with the largest positive activations, of the sentence the neurons that are
// among them for most tokens. A block finds one token's cut; frequencies are integers, so the order in which
// blocks add to them is of no account.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/core/warp.cuh"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/bitset.hpp"
#include "corematching/select/row_keys.cuh"
#include "corematching/select/top_cut.cuh"

namespace corematching::select::device {
namespace detail {

inline constexpr int counting_threads = 512;
inline constexpr int choosing_threads = 1024;

/// Bits of a positive key.
template <class T>
inline constexpr int key_bits = sizeof(T) == 4 ? 31 : 15;

/// select::core_size, of a rho that was checked.
__device__ inline index core_size(double rho, std::int32_t activated) {
  if (activated == 0) return 0;
  const auto size = static_cast<index>(floor(rho * activated));
  return size < 1 ? 1 : size;
}

/// *size = floor(rho * mean of counts[rows]), select::mean_core_size. One block.
template <int Threads>
__global__ void __launch_bounds__(Threads) mean_size(const std::int32_t* counts, const std::int32_t* rows,
                                                     index tokens, double rho, std::int32_t* size) {
  long long activated = 0;
  for (index i = threadIdx.x; i < tokens; i += Threads) activated += counts[rows == nullptr ? i : rows[i]];
  activated = cuda::detail::block_sum<Threads>(activated);
  if (threadIdx.x == 0)
    *size = static_cast<std::int32_t>(
        floor(rho * (static_cast<double>(activated) / static_cast<double>(tokens))));
}

template <class T, int Reads>
__global__ void __launch_bounds__(counting_threads)
    count_core(const T* activation, index neurons, index stride, const std::int32_t* rows,
               const std::int32_t* counts, double rho, const std::int32_t* shared_size,
               std::int32_t* frequency) {
  __shared__ cut_finder<counting_threads> finder;
  const index token = rows == nullptr ? index{blockIdx.x} : index{rows[blockIdx.x]};
  const index size = shared_size == nullptr ? core_size(rho, counts[token]) : index{*shared_size};
  if (size <= 0) return;  // the whole block
  const T* row = activation + token * stride;
  const auto keys =
      keys_of_row<counting_threads, Reads>(neurons, [row](index n) { return activation_key(row[n]); });
  const key_cut cut = finder.find(keys, key_bits<T>, size);
  keys.for_each([&](index n, std::int32_t key) {
    if (cut.chooses(key, n)) atomicAdd(&frequency[n], 1);
  });
}

/// The neurons that `cut` chooses, ascending, as numbers and, where there is room for them, as bits, by a
/// whole block; returns how many. Each warp takes 64 neurons at a time.
template <int Threads, class KeyAt>
__device__ inline int write_chosen(const read_keys<Threads, KeyAt>& keys, key_cut cut,
                                   cut_finder<Threads>& finder, std::int32_t* indices, word* bits) {
  const auto& [neurons, key_at] = keys;
  const int lane = static_cast<int>(threadIdx.x) % cuda::detail::warp_size;
  const index warp = static_cast<int>(threadIdx.x) / cuda::detail::warp_size;
  const unsigned lower_lanes = (1u << lane) - 1;
  int written = 0;
  for (index first = 0; first < neurons; first += Threads * 2) {
    const index low = first + warp * bits_per_word + lane, high = low + cuda::detail::warp_size;
    const bool takes_low = low < neurons && cut.chooses(key_at(low), low);
    const bool takes_high = high < neurons && cut.chooses(key_at(high), high);
    const unsigned lows = __ballot_sync(cuda::detail::all_lanes, takes_low);
    const unsigned highs = __ballot_sync(cuda::detail::all_lanes, takes_high);
    const int here = __popc(lows) + __popc(highs);
    int total = 0;
    // Each warp's first lane adds its count; to the other lanes that is one of those before them.
    const int before = finder.sum_before(lane == 0 ? here : 0, total) - (lane == 0 ? 0 : here);
    std::int32_t* place = indices + written + before;
    if (takes_low) place[__popc(lows & lower_lanes)] = static_cast<std::int32_t>(low);
    if (takes_high) place[__popc(lows) + __popc(highs & lower_lanes)] = static_cast<std::int32_t>(high);
    if (bits != nullptr && lane == 0 && low < neurons) bits[low / bits_per_word] = word{highs} << 32 | lows;
    written += total;
  }
  return written;
}

/// The same of keys in registers, of which all are written at once: each warp has 32 neighbours of every
/// read.
template <int Threads, int Reads, class KeyAt>
__device__ inline int write_chosen(const held_keys<Threads, Reads, KeyAt>& keys, key_cut cut,
                                   cut_finder<Threads>& finder, std::int32_t* indices, word* bits) {
  constexpr int warps = Threads / cuda::detail::warp_size, groups = Reads * warps;
  static_assert(groups <= Threads && groups <= digit_bins);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cuda::detail::warp_size;
  const int warp = thread / cuda::detail::warp_size;
  int* const written = finder.histogram;  // by the groups of 32 before each
  unsigned chosen[Reads];
#pragma unroll
  for (int i = 0; i < Reads; ++i) {
    const index n = keys.position(i);
    chosen[i] = __ballot_sync(cuda::detail::all_lanes, n < keys.size && cut.chooses(keys.keys[i], n));
    if (lane > 0) continue;
    written[i * warps + warp] = __popc(chosen[i]);
    if (bits != nullptr && n / bits_per_word < words_for(keys.size))
      reinterpret_cast<unsigned*>(bits)[n / cuda::detail::warp_size] = chosen[i];  // half of a word
  }
  __syncthreads();
  int total = 0;
  const int before = finder.sum_before(thread < groups ? written[thread] : 0, total);
  if (thread < groups) written[thread] = before;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < Reads; ++i)
    if ((chosen[i] >> lane & 1u) != 0)
      indices[written[i * warps + warp] + __popc(chosen[i] & ((1u << lane) - 1))] =
          static_cast<std::int32_t>(keys.position(i));
  return total;
}

/// C_ρ^β out of f. One block.
template <int Threads, int Reads>
__global__ void __launch_bounds__(Threads)
    choose_core(const std::int32_t* frequency, index neurons, index wanted, std::int32_t* indices, word* bits,
                std::int32_t* size) {
  __shared__ cut_finder<Threads> finder;
  const auto keys = keys_of_row<Threads, Reads>(neurons, [frequency](index n) { return frequency[n]; });
  key_cut cut{std::numeric_limits<std::int32_t>::max(), 0};
  if (wanted > 0) {
    // Counts are small: their leading digits, all zero, need no histogram.
    std::int32_t most = 0;
    keys.for_each([&](index, std::int32_t f) { most = f > most ? f : most; });
    most = finder.largest(most);
    cut = finder.find(keys, cuda::detail::warp_size - __clz(most), wanted);
  }
  const int written = write_chosen(keys, cut, finder, indices, bits);
  if (threadIdx.x == 0) *size = written;
}

}  // namespace detail

/// *size = floor(rho * mean over `tokens` rows of counts[row]), the k(x) that the rule mean_count gives to
/// all of them. `rows` lists the rows; without it (null) they are the first ones. There must be one.
inline void mean_core_size(cudaStream_t stream, const std::int32_t* counts, const std::int32_t* rows,
                           index tokens, double rho, std::int32_t* size) {
  cuda::detail::launch(stream, dim3(1), dim3(detail::choosing_threads),
                       detail::mean_size<detail::choosing_threads>, counts, rows, tokens, rho, size);
}

/// frequency[n] += the number of `tokens` rows x of `activation` (rows `stride` elements apart) with n in
/// C_ρ(x), the k(x) largest positive activations; ties go to the lower neuron. `rows` lists the rows; without
/// it (null) they are the first ones. k(x) is *shared_size, or without it (null) that of the rule per_token,
/// from counts[x] = |Γ(x)|. The activations must be finite.
template <class T>
void count_core_neurons(cudaStream_t stream, const T* activation, index neurons, index stride,
                        const std::int32_t* rows, index tokens, const std::int32_t* counts, double rho,
                        const std::int32_t* shared_size, std::int32_t* frequency) {
  visit_reads<detail::counting_threads>(neurons, [&](auto reads) {
    cuda::detail::launch(stream, dim3(static_cast<unsigned>(tokens)), dim3(detail::counting_threads),
                         detail::count_core<T, reads>, activation, neurons, stride, rows, counts, rho,
                         shared_size, frequency);
  });
}

/// C_ρ^β: of `neurons` frequencies the `wanted` largest that are positive, fewer where fewer are; ties go to
/// the lower neuron. Ascending into indices[wanted], as a set into bits[words_for(neurons)], and how many
/// into *size.
inline void core_neurons(cudaStream_t stream, const std::int32_t* frequency, index neurons, index wanted,
                         std::int32_t* indices, word* bits, std::int32_t* size) {
  visit_reads<detail::choosing_threads>(neurons, [&](auto reads) {
    cuda::detail::launch(stream, dim3(1), dim3(detail::choosing_threads),
                         detail::choose_core<detail::choosing_threads, reads>, frequency, neurons, wanted,
                         indices, bits, size);
  });
}

}  // namespace corematching::select::device

// SPDX-License-Identifier: Apache-2.0
// The k largest of a row of positive keys, found by one block without sorting: digit by digit from the top, a
// histogram of the keys that agree with the k-th largest so far tells its next digit. Shared memory holds one
// histogram; the row is gone through once for every digit (three times for binary32).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"
#include "corematching/core/warp.cuh"

namespace corematching::select::device {

/// Which entries of a row are chosen: those with a key above `key`, and those equal to it whose position lies
/// below `ties_end`. The default chooses all positive ones.
struct key_cut {
  std::int32_t key = 0;
  index ties_end = 0;

  __device__ bool chooses(std::int32_t candidate, index position) const {
    return candidate > key || (candidate == key && position < ties_end);
  }
};

inline constexpr int digit_bits = 11;
inline constexpr int digit_bins = 1 << digit_bits;

/// Shared memory of a block of `Threads` that looks for a cut. All functions of it are collective.
template <int Threads>
struct cut_finder {
  static constexpr int warps = Threads / cuda::detail::warp_size;
  static constexpr int bins_per_thread = digit_bins / Threads;
  static_assert(Threads % cuda::detail::warp_size == 0 && digit_bins % Threads == 0);

  struct ranked_bin {
    int bin;
    int above;  // keys in the bins above it
    int here;
  };

  int histogram[digit_bins];
  int warp_totals[warps];
  ranked_bin found;
  index ties_end;

  /// The sum of `value` over the threads before this one; `total` becomes that over all.
  __device__ int sum_before(int value, int& total) {
    const int lane = static_cast<int>(threadIdx.x) % cuda::detail::warp_size;
    const int warp = static_cast<int>(threadIdx.x) / cuda::detail::warp_size;
    int sum = value;
#pragma unroll
    for (int distance = 1; distance < cuda::detail::warp_size; distance *= 2) {
      const int other = __shfl_up_sync(cuda::detail::all_lanes, sum, static_cast<unsigned>(distance));
      if (lane >= distance) sum += other;
    }
    if (lane == cuda::detail::warp_size - 1) warp_totals[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
    for (int w = 0; w < warps; ++w) {
      if (w == warp) before = total;
      total += warp_totals[w];
    }
    __syncthreads();  // warp_totals may be written again
    return before + sum - value;
  }

  /// The largest `value` of the block's threads, in every thread.
  __device__ int largest(int value) {
    value = cuda::detail::warp_max(value);
    if (threadIdx.x % cuda::detail::warp_size == 0)
      warp_totals[threadIdx.x / cuda::detail::warp_size] = value;
    __syncthreads();
    for (int w = 0; w < warps; ++w) value = warp_totals[w] > value ? warp_totals[w] : value;
    __syncthreads();  // warp_totals may be written again
    return value;
  }

  __device__ void clear() {
    for (int bin = static_cast<int>(threadIdx.x); bin < digit_bins; bin += Threads) histogram[bin] = 0;
    __syncthreads();
  }

  /// The bin in which the counts, from the top bin down, reach `rank` >= 1; where they never do, `here` of
  /// the lowest bin ends at the total.
  __device__ ranked_bin find_bin(index rank) {
    __syncthreads();
    const int top = digit_bins - 1 - static_cast<int>(threadIdx.x) * bins_per_thread;
    int mine = 0, total = 0;
#pragma unroll
    for (int i = 0; i < bins_per_thread; ++i) mine += histogram[top - i];
    int above = sum_before(mine, total);
    if (threadIdx.x == 0 && total < rank) found = {0, 0, total};
    if (above < rank && above + mine >= rank) {
      int bin = top;
      for (; above + histogram[bin] < rank; --bin) above += histogram[bin];
      found = {bin, above, histogram[bin]};
    }
    __syncthreads();
    return found;
  }

  /// Position behind the `ties`-th key equal to `key`, of which there are more: a histogram of the positions
  /// says in which few of them it lies.
  template <class Keys>
  __device__ index end_of_ties(const Keys& keys, std::int32_t key, index ties) {
    int shift = 0;
    while ((keys.size - 1) >> shift >= digit_bins) ++shift;
    clear();
    keys.for_each([&](index n, std::int32_t candidate) {
      if (candidate == key) atomicAdd(&histogram[digit_bins - 1 - static_cast<int>(n >> shift)], 1);
    });
    const ranked_bin last = find_bin(ties);
    if (threadIdx.x == 0) {
      index n = static_cast<index>(digit_bins - 1 - last.bin) << shift;
      for (index left = ties - last.above; left > 0; ++n) left -= keys.key_at(n) == key ? 1 : 0;
      ties_end = n;
    }
    __syncthreads();
    return ties_end;
  }

  /// Cut that leaves the min(k, positives) largest positive `keys` (row_keys.cuh), k >= 1, ties to the lower
  /// position. No key has more than `bits` bits.
  template <class Keys>
  __device__ key_cut find(const Keys& keys, int bits, index k) {
    std::int32_t known = 0;  // the leading digits of the k-th largest key
    index rank = k;          // among the keys that begin with them
    for (int shift = bits; shift > 0;) {
      const int next = shift > digit_bits ? shift - digit_bits : 0;
      clear();
      keys.for_each([&](index, std::int32_t key) {
        if (key > 0 && key >> shift == known) atomicAdd(&histogram[key >> next & (digit_bins - 1)], 1);
      });
      const ranked_bin at = find_bin(rank);
      if (at.above + at.here < rank) return {};
      known = known << (shift - next) | at.bin;
      rank -= at.above;
      shift = next;
      // All that begin with these digits; 0 is no key.
      if (rank == at.here) return {known == 0 ? 0 : (known << shift) - 1, 0};
    }
    if (known == 0) return {};  // no key has a bit
    return {known, end_of_ties(keys, known, rank)};
  }
};

}  // namespace corematching::select::device

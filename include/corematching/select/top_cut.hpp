// SPDX-License-Identifier: Apache-2.0
// The k largest positive activations of one token, without sorting. A sample of the row gives a floor that
// probably lies a little below the k-th largest; the keys above the floor are packed together and counted
// into bins, and the one bin that holds the k-th is looked at closely. The sample decides the speed, never
// the result: where it misleads, the floor is taken as 0 and the steps are repeated.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"
#include "corematching/select/key_lanes.hpp"

namespace corematching::select {

/// Which entries of a row are its k largest: those with a key above `key`, and those equal to `key` whose
/// position is below `ties_end`.
struct top_cut {
  std::int32_t key = 1;
  index ties_end = 0;
};

inline namespace COREMATCHING_CPU_ISA {

/// Working memory of one thread, reused from token to token. Its content means nothing between calls.
struct core_scratch {
  static constexpr index bins = 2048;

  std::vector<std::int32_t> keys;
  std::array<std::int32_t, bins> histogram;
};

namespace detail {

/// Packs the keys above `floor` together, in order; returns how many. `packed` has room for neurons + 8.
template <class T>
index pack_keys_scalar(const T* activation, index neurons, std::int32_t floor, std::int32_t* packed) {
  index size = 0;
  for (index n = 0; n < neurons; ++n) {
    const std::int32_t key = activation_key(activation[n]);
    packed[size] = key;
    size += key > floor ? 1 : 0;
  }
  return size;
}

#if COREMATCHING_HAS_SIMD
template <class T>
index pack_keys_vector(const T* activation, index neurons, std::int32_t floor, std::int32_t* packed) {
  const key_lanes above = key_lanes::broadcast(floor);
  const index whole = neurons - neurons % key_lanes::count;
  index size = 0;
  for (index n = 0; n < whole; n += key_lanes::count) {
    const key_lanes keys = key_lanes::load(activation + n);
    const unsigned mask = (keys > above).signs();
    keys.store_some(mask, packed + size);
    size += std::popcount(mask);
  }
  return size + pack_keys_scalar(activation + whole, neurons - whole, floor, packed + size);
}
#endif

template <class T>
index pack_keys(const T* activation, index neurons, std::int32_t floor, std::int32_t* packed) {
#if COREMATCHING_HAS_SIMD
  return pack_keys_vector(activation, neurons, floor, packed);
#else
  return pack_keys_scalar(activation, neurons, floor, packed);
#endif
}

/// Bins of a histogram of keys: bin 0 begins at `floor`, each is 2^shift wide, the last one takes the rest.
struct key_bins {
  std::int32_t floor;
  int shift;

  index operator()(std::int32_t key) const {
    return std::min<index>((key - floor) >> shift, core_scratch::bins - 1);
  }
};

/// Widths that let the bins span all positive keys, or the octave (or more) above a floor.
template <class T>
inline constexpr int wide_shift = sizeof(T) == 4 ? 20 : 4;
template <class T>
inline constexpr int fine_shift = sizeof(T) == 4 ? 12 : 0;

/// The bin in which the keys, counted from the largest down, reach `rank`; 0 if they never do.
struct ranked_bin {
  index bin;
  index above;  // keys in the bins above it
};

inline ranked_bin find_bin(const std::int32_t* keys, index size, index rank, key_bins bin_of,
                           core_scratch& scratch) {
  scratch.histogram.fill(0);
  for (index i = 0; i < size; ++i) ++scratch.histogram[static_cast<std::size_t>(bin_of(keys[i]))];
  ranked_bin found{core_scratch::bins - 1, 0};
  for (; found.bin > 0; --found.bin) {
    const index here = scratch.histogram[static_cast<std::size_t>(found.bin)];
    if (found.above + here >= rank) break;
    found.above += here;
  }
  return found;
}

/// A key that, by a sample of the row, somewhat more than k keys lie above; 0 where it cannot say.
template <class T>
std::int32_t sampled_floor(const T* activation, index neurons, index k, core_scratch& scratch) {
  constexpr index run = 16, one_in = 16;  // one cache line in 16 is read
  constexpr index too_short = 2048;       // packing such a row whole costs less than a wrong floor
  if (neurons < too_short) return 0;
  std::int32_t* sample = scratch.keys.data();
  index size = 0;
  for (index n = 0; n + run <= neurons; n += run * one_in)
    size += pack_keys(activation + n, run, 0, sample + size);

  // The number of sampled keys among the k largest scatters by about its root.
  const double expected = static_cast<double>(k) / one_in;
  const auto rank = static_cast<index>(expected + 3.0 * std::sqrt(expected)) + 2;
  const key_bins bin_of{0, wide_shift<T>};
  const index bin = find_bin(sample, size, rank, bin_of, scratch).bin;
  return bin == 0 ? 0 : static_cast<std::int32_t>((bin << bin_of.shift) - 1);
}

/// End of the shortest prefix of the row that has `ties` keys equal to `key`.
template <class T>
index end_of_ties(const T* activation, std::int32_t key, index ties) {
  index n = 0;
  for (; ties > 0; ++n) ties -= activation_key(activation[n]) == key ? 1 : 0;
  return n;
}

}  // namespace detail

/// Cut that leaves the min(k, positives) largest positive activations, k >= 1; ties go to the lower neuron.
template <class T>
top_cut top_positive(const T* activation, index neurons, index k, core_scratch& scratch) {
  scratch.keys.resize(static_cast<std::size_t>(neurons) + 8);
  std::int32_t* keys = scratch.keys.data();
  std::int32_t floor = detail::sampled_floor(activation, neurons, k, scratch);
  index size = detail::pack_keys(activation, neurons, floor, keys);
  if (size < k && floor > 0) {
    floor = 0;
    size = detail::pack_keys(activation, neurons, floor, keys);
  }
  if (size <= k) return {floor + 1, neurons};

  const detail::key_bins bin_of{floor, floor == 0 ? detail::wide_shift<T> : detail::fine_shift<T>};
  const detail::ranked_bin kth = detail::find_bin(keys, size, k, bin_of, scratch);
  std::int32_t* const end =
      std::remove_if(keys, keys + size, [&](std::int32_t key) { return bin_of(key) != kth.bin; });
  std::int32_t* const place = keys + (k - kth.above - 1);
  std::nth_element(keys, place, end, std::greater<>{});
  const std::int32_t key = *place;
  const index ties_wanted = 1 + std::count(keys, place, key);
  const index ties_there = ties_wanted + std::count(place + 1, end, key);
  return {key, ties_wanted == ties_there ? neurons : detail::end_of_ties(activation, key, ties_wanted)};
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

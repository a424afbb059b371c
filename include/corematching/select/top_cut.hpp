// SPDX-License-Identifier: Apache-2.0
// The k largest positive activations of one token, without sorting: pack the positive keys together, count
// them by their leading bits, and look closely at the one bin that holds the k-th.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activation_key.hpp"

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
  std::vector<std::int32_t> keys;
  std::array<std::int32_t, 2048> histogram;
};

namespace detail {

/// Packs the keys above `floor` together, in order; returns how many. `packed` has room for neurons + 8.
template <class T>
index pack_keys_scalar(const T* activation, index begin, index neurons, std::int32_t floor,
                       std::int32_t* packed) {
  index size = 0;
  for (index n = begin; n < neurons; ++n) {
    const std::int32_t key = activation_key(activation[n]);
    packed[size] = key;
    size += key > floor ? 1 : 0;
  }
  return size;
}

#if COREMATCHING_HAS_AVX2
/// Row m: the lanes whose bit is set in m, moved to the front.
inline constexpr auto lanes_to_front = [] {
  std::array<std::array<std::uint8_t, lanes>, 256> rows{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::size_t next = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) {
      if (mask >> lane & 1u) rows[mask][next++] = static_cast<std::uint8_t>(lane);
    }
  }
  return rows;
}();

template <class T>
index pack_keys_avx2(const T* activation, index neurons, std::int32_t floor, std::int32_t* packed) {
  const __m256i above = _mm256_set1_epi32(floor);
  index size = 0;
  index n = 0;
  for (; n + lanes <= neurons; n += lanes) {
    const __m256i keys = load_keys(activation + n);
    const unsigned mask = sign_mask(_mm256_cmpgt_epi32(keys, above));
    const __m128i order = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(lanes_to_front[mask].data()));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed + size),
                        _mm256_permutevar8x32_epi32(keys, _mm256_cvtepu8_epi32(order)));
    size += std::popcount(mask);
  }
  return size + pack_keys_scalar(activation, n, neurons, floor, packed + size);
}
#endif

template <class T>
index pack_keys(const T* activation, index neurons, std::int32_t floor, std::int32_t* packed) {
#if COREMATCHING_HAS_AVX2
  return pack_keys_avx2(activation, neurons, floor, packed);
#else
  return pack_keys_scalar(activation, 0, neurons, floor, packed);
#endif
}

}  // namespace detail

/// Cut that leaves the min(k, positives) largest positive activations, ties to the lower neuron.
template <class T>
top_cut top_positive(const T* activation, index neurons, index k, core_scratch& scratch) {
  scratch.keys.resize(static_cast<std::size_t>(neurons) + 8);
  std::int32_t* keys = scratch.keys.data();
  const index positives = detail::pack_keys(activation, neurons, 0, keys);
  if (positives <= k) return {1, neurons};

  std::nth_element(keys, keys + (k - 1), keys + positives, std::greater<>{});
  const std::int32_t key = keys[k - 1];
  index ties = k - std::count_if(keys, keys + k, [key](std::int32_t other) { return other > key; });
  index n = 0;
  for (; ties > 0; ++n) ties -= activation_key(activation[n]) == key ? 1 : 0;
  return {key, n};
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
// The keys of a row as a block goes through them several times: kept in registers where they are not too
// many, otherwise read again each time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "corematching/core/view.hpp"

namespace corematching::select::device {

/// key_at(n) for each of `size` positions n, read each time. Threads of the block that calls.
template <int Threads, class KeyAt>
struct read_keys {
  index size;
  KeyAt key_at;

  /// Calls body(n, key) for the positions of this thread, and perhaps with the key 0 for some behind the end.
  /// Eight reads are in flight.
  template <class Body>
  __device__ void for_each(const Body& body) const {
    constexpr int reads = 8;
    for (index first = threadIdx.x; first < size; first += reads * Threads) {
      std::int32_t keys[reads];
#pragma unroll
      for (int i = 0; i < reads; ++i) {
        const index n = first + i * Threads;
        keys[i] = n < size ? key_at(n) : 0;
      }
#pragma unroll
      for (int i = 0; i < reads; ++i) body(first + i * Threads, keys[i]);
    }
  }
};

/// The same of at most Threads * Reads positions, read once: thread t has those of t, t + Threads, ...
template <int Threads, int Reads, class KeyAt>
struct held_keys {
  index size;
  KeyAt key_at;
  std::int32_t keys[Reads];

  __device__ held_keys(index row_size, const KeyAt& key_at_place) : size(row_size), key_at(key_at_place) {
#pragma unroll
    for (int i = 0; i < Reads; ++i) keys[i] = position(i) < size ? key_at(position(i)) : 0;
  }
  __device__ static index position(int i) {
    return static_cast<int>(threadIdx.x) + i * Threads;
  }

  template <class Body>
  __device__ void for_each(const Body& body) const {
#pragma unroll
    for (int i = 0; i < Reads; ++i) body(position(i), keys[i]);
  }
};

/// held_keys with so many reads, or, for none, read_keys.
template <int Threads, int Reads, class KeyAt>
__device__ auto keys_of_row(index size, const KeyAt& key_at) {
  if constexpr (Reads == 0)
    return read_keys<Threads, KeyAt>{size, key_at};
  else
    return held_keys<Threads, Reads, KeyAt>(size, key_at);
}

/// Calls `body` with the number of reads by which `Threads` threads hold a row of `size` keys, 0 for a longer
/// one than registers have room for, as a std::integral_constant.
template <int Threads, class Body>
void visit_reads(index size, Body&& body) {
  constexpr int reads = 16384 / Threads;  // LLaMA-2's layers of 7B and 13B have 11,008 and 13,824 neurons
  if (size <= Threads * reads) return std::forward<Body>(body)(std::integral_constant<int, reads>{});
  std::forward<Body>(body)(std::integral_constant<int, 0>{});
}

}  // namespace corematching::select::device

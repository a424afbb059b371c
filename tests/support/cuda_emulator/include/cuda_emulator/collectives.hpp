// SPDX-License-Identifier: Apache-2.0
// Barriers of a block and what the lanes of a warp do together.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "language.hpp"

namespace cuda_emulator::detail {

using where = std::source_location;

struct block_votes {
  int all = 0, any = 0, count = 0;
};

/// Parks the thread until every thread of the block has come to this call.
block_votes meet_in_block(bool vote, const where& at);

enum class collective : std::uint8_t { sync, vote, shuffle };

/// Parks the thread until every lane of `mask` has called with the same mask and operation. Gives what lane
/// `source` brought (all bits set if that lane takes no part), or for `vote` the lanes that brought a 1.
std::uint64_t meet_in_warp(collective operation, unsigned mask, std::uint64_t value, int source,
                           const where& at);

int lane();

/// Notes that the thread has waited for the kernels before its own.
void wait_for_dependencies();

template <class T>
T shuffle(unsigned mask, T value, int source, const where& at) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet_in_warp(collective::shuffle, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

/// First lane of the segment of `width` lanes that the thread is in.
inline int segment(int width) {
  return lane() & ~(width - 1);
}

}  // namespace cuda_emulator::detail

/// Kernels run one after another, so there is nothing to wait for; a thread that ends without it, in a kernel
/// that could have been started early, is an error.
inline void cudaGridDependencySynchronize() {
  cuda_emulator::detail::wait_for_dependencies();
}
inline void cudaTriggerProgrammaticLaunchCompletion() {}

inline void __syncthreads(const std::source_location& at = std::source_location::current()) {
  cuda_emulator::detail::meet_in_block(false, at);
}
inline int __syncthreads_or(int vote, const std::source_location& at = std::source_location::current()) {
  return cuda_emulator::detail::meet_in_block(vote != 0, at).any;
}
inline int __syncthreads_and(int vote, const std::source_location& at = std::source_location::current()) {
  return cuda_emulator::detail::meet_in_block(vote != 0, at).all;
}
inline int __syncthreads_count(int vote, const std::source_location& at = std::source_location::current()) {
  return cuda_emulator::detail::meet_in_block(vote != 0, at).count;
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  meet_in_warp(collective::sync, mask, 0, 0, at);
}

inline unsigned __ballot_sync(unsigned mask, int vote,
                              const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  return static_cast<unsigned>(meet_in_warp(collective::vote, mask, vote != 0, 0, at));
}
inline int __any_sync(unsigned mask, int vote,
                      const std::source_location& at = std::source_location::current()) {
  return __ballot_sync(mask, vote, at) != 0;
}
inline int __all_sync(unsigned mask, int vote,
                      const std::source_location& at = std::source_location::current()) {
  return __ballot_sync(mask, vote == 0, at) == 0;
}

// Lanes outside of the segment bring the thread its own value back, as on the device.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  return shuffle(mask, value, segment(width) + (source & (width - 1)), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  const int source = lane() - static_cast<int>(distance);
  return shuffle(mask, value, source < segment(width) ? lane() : source, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  const int source = lane() + static_cast<int>(distance);
  return shuffle(mask, value, source >= segment(width) + width ? lane() : source, at);
}
/// A source in a later segment gives the thread its own value; one in an earlier segment is read.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  const std::source_location& at = std::source_location::current()) {
  using namespace cuda_emulator::detail;
  const int source = lane() ^ bits;
  return shuffle(mask, value, source >= segment(width) + width ? lane() : source, at);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// SPDX-License-Identifier: Apache-2.0
// The backend that tests run on: the same files are built for the CPU and, with COREMATCHING_TEST_CUDA, for a
// CUDA device or for the emulator of one.
#pragma once

#include <cstddef>
#include <limits>

#if defined(COREMATCHING_TEST_CUDA)
#include "corematching/cuda.cuh"
#else
#include "corematching/cpu.hpp"
#endif

namespace support {

/// Whether kernels run on the CPU thread by thread: tests that take long then take less.
#if defined(CUDA_EMULATOR)
inline constexpr bool is_emulated = true;
#else
inline constexpr bool is_emulated = false;
#endif

#if defined(COREMATCHING_TEST_CUDA)

using test_backend = corematching::cuda::backend;
/// Tokens beyond so many are rounded to the type of 16-bit weights that they are multiplied by.
inline constexpr std::ptrdiff_t exact_tokens = corematching::cuda::detail::few_tokens;
inline constexpr bool has_block_formats = false;
inline bool multiplied_in_tiles(corematching::dtype) {
  return false;
}
inline constexpr int thread_counts[] = {1};

/// A backend; how many threads is no question that a device asks.
template <class B>
B make_backend(int) {
  return B();
}

#else

using test_backend = corematching::cpu::backend;
inline constexpr std::ptrdiff_t exact_tokens = std::numeric_limits<std::ptrdiff_t>::max();
inline constexpr bool has_block_formats = true;
using corematching::cpu::detail::multiplied_in_tiles;
inline constexpr int thread_counts[] = {1, 2, 3};

template <class B>
B make_backend(int threads) {
  return B(threads);
}

#endif

}  // namespace support

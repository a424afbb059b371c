// SPDX-License-Identifier: Apache-2.0
// The backend that tests run on, linked: the same files are built for the host's memory, where every body of
// the CPU backend and Eigen's compute in turn, and, with COREMATCHING_TEST_DEVICE, for a CUDA device or for
// the emulator of one.
#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <string>

#if defined(COREMATCHING_TEST_DEVICE)
#include "corematching/cuda_linked.hpp"
#else
#include "corematching/cpu_linked.hpp"
#endif

namespace support {

/// Whether kernels run on the CPU thread by thread: tests that take long then take less. Of tests for a
/// device the program says so, since the same objects are linked with the emulator and with the toolkit.
#if defined(COREMATCHING_TEST_DEVICE)
extern const bool is_emulated;
#else
inline constexpr bool is_emulated = false;
#endif

/// Up to so many tokens the CPU's kernels multiply by rows of weights as they are, and give each the bits
/// that it gets alone; more of them go through other code.
inline constexpr std::ptrdiff_t few_tokens = 12;

/// Whether every access to memory is checked, which takes long too.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool is_sanitized = true;
#else
inline constexpr bool is_sanitized = false;
#endif

/// Of many cases all are looked at, but on the emulator or with sanitizers one of a few.
class sampled_cases {
 public:
  /// Whether to look at the next case: emulated or sanitized, at one of `step`.
  bool takes_next(int step) { return case_++ % (is_emulated || is_sanitized ? step : 1) == 0; }

 private:
  int case_ = 0;
};

#if defined(COREMATCHING_TEST_DEVICE)

using test_backend = corematching::linked_backend<corematching::device_space>;
/// Tokens beyond so many are rounded to the type of 16-bit weights that they are multiplied by.
inline constexpr std::ptrdiff_t exact_tokens = 8;
inline constexpr bool has_block_formats = false;
inline bool multiplied_in_tiles(corematching::dtype) {
  return false;
}
inline constexpr int thread_counts[] = {1};

/// A backend; how many threads is no question that a device asks.
template <std::same_as<test_backend> B = test_backend>
B make_backend(int) {
  return corematching::cuda::make_linked_backend();
}

#else

using test_backend = corematching::linked_backend<corematching::host_space>;
inline constexpr std::ptrdiff_t exact_tokens = std::numeric_limits<std::ptrdiff_t>::max();
inline constexpr bool has_block_formats = true;
inline constexpr int thread_counts[] = {1, 2, 3};

template <std::same_as<test_backend> B = test_backend>
B make_backend(int threads) {
  return corematching::cpu::make_linked_backend(threads);
}

/// Of the body that computes, as config.hpp names it; empty for Eigen's.
inline const std::string& instruction_set() {
  static const std::string name = make_backend(1).describe().instruction_set;
  return name;
}

/// Whether products of many tokens with such weights are computed in AMX tiles.
inline bool multiplied_in_tiles(corematching::dtype type) {
  return instruction_set() == "amx" && type != corematching::dtype::f32;
}

#endif

/// Whether products with weights in the block formats round tokens at all, which Eigen's do not.
inline bool rounds_tokens_to_integers() {
#if defined(COREMATCHING_TEST_DEVICE)
  return false;
#else
  return !instruction_set().empty();
#endif
}

/// Whether products of many tokens along blocks of such weights round tokens to 8 bits, not to 16: with AVX2
/// where quants have at most five bits, with a dot product of bytes also for q8_0.
inline bool rounds_tokens_to_bytes([[maybe_unused]] corematching::dtype type) {
#if defined(COREMATCHING_TEST_DEVICE)
  return false;
#else
  using enum corematching::dtype;
  const corematching::dtype whole = corematching::whole_of(type);
  if (whole == q4_0 || whole == q4_k || whole == q5_k || whole == down_4bit_32 || whole == down_4bit_32m)
    return instruction_set().starts_with("avx") || instruction_set() == "amx";
  return whole == q8_0 &&
         (instruction_set() == "avx2_vnni" || instruction_set() == "avx512" || instruction_set() == "amx");
#endif
}

/// Whether those of few tokens do, along rows that are kept as files store them, or split.
inline bool rounds_few_tokens_to_bytes(corematching::dtype type) {
  using enum corematching::dtype;
  if (type == q4_k_planes) return rounds_tokens_to_integers();
  return (type == q4_k || type == q5_k || type == q6_k) && rounds_tokens_to_bytes(q4_k);
}

}  // namespace support

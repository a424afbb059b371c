// SPDX-License-Identifier: Apache-2.0
// Failed calls of the CUDA runtime as exceptions that name the call, its file and its line.
#pragma once

#include <cuda_runtime.h>

#include "corematching/core/error.hpp"

namespace corematching::cuda::detail {

inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that a later call does not report this one again
  fail(file, ":", line, ": ", call, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

}  // namespace corematching::cuda::detail

/// Calls a function of the CUDA runtime, or of a library whose status has a `check` too, and throws
/// `corematching::error` if it fails.
#define COREMATCHING_CUDA_CHECK(...) \
  ::corematching::cuda::detail::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

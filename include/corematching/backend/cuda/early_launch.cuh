// SPDX-License-Identifier: Apache-2.0
// Kernels that are started while those before them still run (programmatic dependent launch), so that a step
// of many short kernels does not wait each time until the next one has been brought to the processors. All
// that such a kernel does, it does behind wait_for_earlier_kernels(): results are those of kernels one after
// the other.
#pragma once

#include <cuda_runtime.h>

#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/cuda_error.cuh"
#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

/// Comes first in a kernel that launch_early() starts: waits until the kernels queued before are done and
/// what they wrote is there. From then on the next kernel may be started. In a kernel that was started
/// otherwise it does nothing.
__device__ inline void wait_for_earlier_kernels() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// Whether kernels of this program can be started early on such a device: it, what they were compiled for,
/// and the driver, which captures such launches from CUDA 12.3 on, have to know how.
inline bool can_launch_early(int compute_capability) {
  int driver = 0;
  return compiled_capability(compute_capability) >= 90 && cudaDriverGetVersion(&driver) == cudaSuccess &&
         driver >= 12030;
}

/// As launch(); where `on` lets kernels overlap, this one may be started while those before it run.
template <class... Parameters, class... Arguments>
void launch_early(const context& on, dim3 grid, dim3 block, void (*kernel)(Parameters...),
                  const Arguments&... arguments) {
  if (!on.overlaps) return launch(on.stream, grid, block, kernel, arguments...);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  launch_with({&early, 1}, on.stream, grid, block, kernel, arguments...);
}

}  // namespace corematching::cuda::detail

// SPDX-License-Identifier: Apache-2.0
// Starting kernels, and the arithmetic of their grids.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <span>

#include "corematching/core/cuda_error.cuh"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

/// Sides of a grid in y and z.
inline constexpr index most_blocks_y = 65535;

constexpr index ceil_div(index a, index b) {
  return (a + b - 1) / b;
}

/// As launch(), in a way that the attributes say.
template <class... Parameters, class... Arguments>
void launch_with(std::span<cudaLaunchAttribute> attributes, cudaStream_t stream, dim3 grid, dim3 block,
                 void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  config.attrs = attributes.data();
  config.numAttrs = static_cast<unsigned>(attributes.size());
  COREMATCHING_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

/// Starts kernel<<<grid, block, 0, stream>>>(arguments...); a grid without blocks is no work. Throws where
/// the kernel cannot be started.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  launch_with({}, stream, grid, block, kernel, arguments...);
}

/// Blocks of a grid whose threads step through `items` by the size of the grid: as many as there is work for,
/// up to `most`.
inline dim3 stepping_grid(index items, index per_block, index most = 65535) {
  return dim3(static_cast<unsigned>(std::min(ceil_div(items, per_block), most)));
}

}  // namespace corematching::cuda::detail

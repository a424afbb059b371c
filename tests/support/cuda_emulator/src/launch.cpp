// SPDX-License-Identifier: Apache-2.0
// Starting kernels: the limits of a grid, and the blocks one after another.
#include <cmath>
#include <cstdint>
#include <utility>

#include "block.hpp"
#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"
#include "stream.hpp"
#include "symbols.hpp"

// glibc declares these names, which in CUDA are fast versions of the functions, and defines none of them.
extern "C" {
float __expf(float value) noexcept {
  return std::exp(value);
}
float __logf(float value) noexcept {
  return std::log(value);
}
float __log2f(float value) noexcept {
  return std::log2(value);
}
float __sinf(float value) noexcept {
  return std::sin(value);
}
float __cosf(float value) noexcept {
  return std::cos(value);
}
float __powf(float base, float exponent) noexcept {
  return std::pow(base, exponent);
}
}

namespace cuda_emulator::detail {

namespace {

bool within_limits(const cudaLaunchConfig_t& config) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  return threads > 0 && threads <= 1024 && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
         grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 &&
         grid.z <= 65535;
}

launch_description in_some_order(launch_description launch) {
  settings& asked = state().asked;
  const std::size_t number = asked.launches++;
  constexpr thread_order orders[] = {thread_order::ascending, thread_order::descending,
                                     thread_order::shuffled};
  launch.order = asked.order == thread_order::alternating ? orders[number % 3] : asked.order;
  launch.seed = asked.seed + static_cast<std::uint32_t>(number);
  return launch;
}

void run_kernel(const launch_description& launch, const std::function<void()>& thread) {
  const dim3& grid = launch.grid;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  shared_memory shared;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t block = launch.order == thread_order::descending ? blocks - 1 - i : i;
    const uint3 index{static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                      static_cast<unsigned>(block / grid.x / grid.y)};
    shared.poison();
    scheduler().run(launch, index, thread);
  }
}

}  // namespace

cudaError_t start(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  api_call call("cudaLaunchKernelEx");
  if (call.fails()) return call.ends();
  if (!within_limits(config)) return call.ends(cudaErrorInvalidConfiguration);
  const bool known =
      config.numAttrs == 0 ||
      (config.numAttrs == 1 && config.attrs->id == cudaLaunchAttributeProgrammaticStreamSerialization);
  if (config.dynamicSmemBytes != 0 || !known) return call.ends(cudaErrorNotSupported);
  launch_description launch{kernel, config.gridDim, config.blockDim};
  launch.early = config.numAttrs == 1 && config.attrs->val.programmaticStreamSerializationAllowed != 0;
  return call.ends(submit(config.stream, operation_kind::kernel, [launch, thread = std::move(thread)] {
    run_kernel(in_some_order(launch), thread);
  }));
}

}  // namespace cuda_emulator::detail

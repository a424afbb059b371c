// SPDX-License-Identifier: Apache-2.0
// What tests ask of the emulator itself: in which order threads run, how much memory there is, which calls
// fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "runtime_types.hpp"

namespace cuda_emulator {

/// A kernel that a device would have left hanging or with undefined results. Thrown where the kernel was
/// started.
struct kernel_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// In which order the threads of a block run between two barriers.
enum class thread_order : std::uint8_t {
  alternating,  // another of the following with every launch: the default
  ascending,
  descending,
  shuffled,
};
void set_thread_order(thread_order order, std::uint32_t seed = 0);

/// Devices that cudaGetDeviceCount finds; 1 by default.
void set_device_count(int count);

/// Bytes that can be allocated at a time.
void set_device_memory(std::size_t bytes);

/// Lets a call of the runtime or of cuBLAS fail, by its name, after `successes` more that do not.
void fail_next(std::string_view call, cudaError_t status, int successes = 0);

/// Allocations of device memory that nobody has given back, and their bytes.
std::size_t live_allocations();
std::size_t live_bytes();

/// Addresses given back that were not allocated: twice, for example.
std::size_t wrong_frees();

/// Kernels that have run.
std::size_t launches();

/// Everything above as it is at the start. Memory stays allocated, and the launches and wrong frees are
/// counted anew.
void reset();

}  // namespace cuda_emulator

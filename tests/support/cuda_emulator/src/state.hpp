// SPDX-License-Identifier: Apache-2.0
// What the calls of the runtime share: memory, the last error, and what tests have asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_emulator/emulator.hpp"

namespace cuda_emulator::detail {

struct wanted_failure {
  std::string call;
  cudaError_t status = cudaSuccess;
  int successes = 0;
};

struct settings {
  thread_order order = thread_order::alternating;
  std::uint32_t seed = 0;
  int device_count = 1;
  std::size_t device_memory = std::size_t{16} << 30;
  std::vector<wanted_failure> failures;
  std::size_t launches = 0, wrong_frees = 0;
};

struct emulator_state {
  std::recursive_mutex mutex;
  settings asked;
  cudaError_t last_error = cudaSuccess;
  std::map<std::uintptr_t, std::size_t> device_memory, pinned_memory;  // sizes by address
  std::size_t used = 0;
  int device = 0;
};

/// Never destroyed: objects of tests may give memory back at the very end.
emulator_state& state();

/// One call of the runtime: holds the lock, fails if a test wants it to, keeps the status for
/// cudaGetLastError.
class api_call {
 public:
  explicit api_call(const char* name);

  bool fails() const { return status_ != cudaSuccess; }
  cudaError_t ends() { return ends(status_); }
  cudaError_t ends(cudaError_t status) {
    if (status != cudaSuccess) state().last_error = status;
    return status;
  }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
  cudaError_t status_ = cudaSuccess;
};

/// Whether a range lies in one live allocation of the device.
bool is_device_memory(const void* from, std::size_t bytes);

/// Whether a range touches device memory at all: then the host must not use it.
bool touches_device_memory(const void* from, std::size_t bytes);

bool any_capture();
void invalidate_captures();

}  // namespace cuda_emulator::detail

// SPDX-License-Identifier: Apache-2.0
// Arrays that kernels of these tests read and write.
#pragma once

#include <vector>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/launch.cuh"

namespace corematching::cuda_emulator_test {

using cuda::detail::launch;

template <class T>
class on_device {
 public:
  on_device(index size, T value) : on_device(std::vector<T>(static_cast<std::size_t>(size), value)) {}
  explicit on_device(const std::vector<T>& values) : memory_(nullptr, static_cast<index>(values.size())) {
    COREMATCHING_CUDA_CHECK(
        cudaMemcpyAsync(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, nullptr));
  }
  T* data() { return memory_.data(); }
  std::vector<T> values() const {
    std::vector<T> copied(static_cast<std::size_t>(memory_.size()));
    COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(copied.data(), memory_.data(), copied.size() * sizeof(T),
                                            cudaMemcpyDeviceToHost, nullptr));
    COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(nullptr));
    return copied;
  }

 private:
  cuda::buffer<T> memory_;
};

}  // namespace corematching::cuda_emulator_test

// SPDX-License-Identifier: Apache-2.0
// Test data in device memory, for code below the backends.
#pragma once

#include <gtest/gtest.h>

#include <iterator>
#include <vector>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/view.hpp"

namespace support {

/// A copy of `values` in device memory.
template <class T>
class on_device {
 public:
  on_device(cudaStream_t stream, const std::vector<T>& values)
      : stream_(stream), memory_(stream, std::ssize(values)) {
    if (values.empty()) return;
    COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(memory_.data(), values.data(), values.size() * sizeof(T),
                                            cudaMemcpyHostToDevice, stream));
  }

  T* data() { return memory_.data(); }
  corematching::vector_view<T, corematching::device_space> view() { return memory_.view(); }

  /// What is there now, after all that is queued.
  std::vector<T> values() const {
    std::vector<T> result(static_cast<std::size_t>(memory_.size()));
    if (!result.empty())
      COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(result.data(), memory_.data(), result.size() * sizeof(T),
                                              cudaMemcpyDeviceToHost, stream_));
    COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(stream_));
    return result;
  }

 private:
  cudaStream_t stream_;
  corematching::cuda::buffer<T> memory_;
};

/// Skips where there is no device; otherwise has a stream.
class device_test : public testing::Test {
 protected:
  void SetUp() override {
    if (corematching::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
    owner_ = corematching::cuda::make_stream();
    on.stream = owner_.get();
  }

  corematching::cuda::context on;

 private:
  corematching::cuda::stream_handle owner_;
};

}  // namespace support

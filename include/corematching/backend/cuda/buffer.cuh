// SPDX-License-Identifier: Apache-2.0
// Device memory in the order of a stream: taken and given back between the kernels that use it, without
// waiting for them. The streams must outlive the buffer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <type_traits>

#include "corematching/core/cuda_error.cuh"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cuda {

template <class T>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  buffer() = default;

  /// Throws `error` when the memory is not to be had.
  buffer(cudaStream_t stream, index size) : buffer(stream, size, stream) {}
  /// Taken in the order of `stream`, given back in that of `user`. Nothing but `stream` may touch it before
  /// the host has waited for `stream`, and nothing but `user` after that.
  buffer(cudaStream_t stream, index size, cudaStream_t user)
      : memory_(nullptr, give_back{user}), size_(size) {
    if (size == 0) return;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    void* memory = nullptr;
    const cudaError_t status = cudaMallocAsync(&memory, bytes, stream);
    if (status != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      fail("out of device memory: ", bytes, " bytes asked for (", cudaGetErrorString(status), ")");
    }
    memory_.reset(static_cast<T*>(memory));
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  index size() const { return size_; }
  vector_view<T, device_space> view() { return {data(), size_}; }
  vector_view<const T, device_space> view() const { return {data(), size_}; }

 private:
  struct give_back {
    cudaStream_t stream = nullptr;
    void operator()(T* memory) const { static_cast<void>(cudaFreeAsync(memory, stream)); }
  };
  std::unique_ptr<T, give_back> memory_;
  index size_ = 0;
};

namespace detail {

/// Host memory that the device reads and writes without a copy in between. Throws `error` when it is not to
/// be had.
inline std::shared_ptr<std::byte> page_locked(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, bytes);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    fail("out of page-locked host memory: ", bytes, " bytes asked for (", cudaGetErrorString(status), ")");
  }
  return {static_cast<std::byte*>(memory), [](std::byte* p) { static_cast<void>(cudaFreeHost(p)); }};
}

}  // namespace detail

/// Memory that grows to what is asked for and keeps its size: a step's intermediate values, whose content is
/// lost with every call.
class workspace {
 public:
  template <class T>
  T* at_least(cudaStream_t stream, index size) {
    const index bytes = size * index{sizeof(T)};
    if (bytes > memory_.size()) {
      memory_ = {};  // first give back, then take
      memory_ = buffer<std::byte>(stream, bytes);
    }
    return reinterpret_cast<T*>(memory_.data());
  }

 private:
  buffer<std::byte> memory_;
};

}  // namespace corematching::cuda

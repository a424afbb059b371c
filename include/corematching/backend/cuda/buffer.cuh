// SPDX-License-Identifier: Apache-2.0
// Device memory in the order of a stream: taken and given back between the kernels that use it, without
// waiting for them. The streams must outlive the buffer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstring>
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
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      fail("out of device memory: ", bytes, " bytes asked for (", cudaGetErrorString(status), ")");
    }
    detail::check(status, "cudaMallocAsync", __FILE__, __LINE__);  // perhaps of a kernel before
    memory_.reset(static_cast<T*>(memory));
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  index size() const { return memory_ ? size_ : 0; }  // of what was moved away, nothing
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
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    fail("out of page-locked host memory: ", bytes, " bytes asked for (", cudaGetErrorString(status), ")");
  }
  check(status, "cudaMallocHost", __FILE__, __LINE__);
  return {static_cast<std::byte*>(memory), [](std::byte* p) { static_cast<void>(cudaFreeHost(p)); }};
}

/// Copies to a device whose source may change or go as soon as they are queued. CUDA promises that neither of
/// page-locked memory nor, where devices read all of the host's memory, of any other; so small copies leave
/// from page-locked memory of their own, and large ones are waited for.
class uploads {
 public:
  void queue(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
    const bool small = bytes <= room / 4;
    if (small) from = copy_of(stream, from, bytes);
    COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
    if (!small) COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(stream));
  }

 private:
  static constexpr std::size_t room = std::size_t{64} << 10, alignment = 16;

  const void* copy_of(cudaStream_t stream, const void* from, std::size_t bytes) {
    if (!memory_) memory_ = page_locked(room);
    if (used_ + bytes > room) {  // all that left from here must have arrived before others take its place
      COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(stream));
      used_ = 0;
    }
    std::byte* const copy = memory_.get() + used_;
    std::memcpy(copy, from, bytes);
    used_ += (bytes + alignment - 1) / alignment * alignment;
    return copy;
  }

  std::shared_ptr<std::byte> memory_;
  std::size_t used_ = 0;
};

/// Memory taken while a stream is captured would belong to the graph.
inline void require_no_capture(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  COREMATCHING_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  require(status == cudaStreamCaptureStatusNone,
          "operations that are captured need more memory than when they ran before");
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
      detail::require_no_capture(stream);
      memory_ = {};  // first give back, then take
      memory_ = buffer<std::byte>(stream, bytes);
    }
    return reinterpret_cast<T*>(memory_.data());
  }
  /// While it stays the same, so does the memory, and it has not shrunk.
  const void* address() const { return memory_.data(); }

 private:
  buffer<std::byte> memory_;
};

}  // namespace corematching::cuda

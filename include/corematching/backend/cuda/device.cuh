// SPDX-License-Identifier: Apache-2.0
// Which device a backend works on, and what owns a stream, an event, a graph and a cuBLAS handle.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>

#include "corematching/core/cuda_error.cuh"
#include "corematching/core/error.hpp"

namespace corematching::cuda {

namespace detail {

inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(file, ":", line, ": ", call, ": ", cublasGetStatusString(status), " (cuBLAS status ",
       static_cast<int>(status), ")");
}

}  // namespace detail

/// Devices that can be used, 0 where there is no driver.
inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return count;
}

/// What the kernels are shaped for.
struct device_properties {
  std::string name;
  int number = 0;
  int processors = 1;            // streaming multiprocessors
  int capability = 0;            // compute capability times ten: 90 for 9.0
  std::size_t memory_bytes = 0;  // of the device, whoever uses it
};

/// Makes `device` the one that this host thread uses; throws `error` where there is none of that number.
inline device_properties use_device(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  require(status == cudaSuccess && count > 0, "no CUDA device can be used: ",
          status == cudaSuccess ? "the system has none" : cudaGetErrorString(status));
  require(device >= 0 && device < count, "CUDA device ", device, " does not exist: the system has ", count,
          count == 1 ? ", number 0" : ", numbered from 0");
  COREMATCHING_CUDA_CHECK(cudaSetDevice(device));
  cudaDeviceProp properties{};
  COREMATCHING_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return {properties.name, device, properties.multiProcessorCount, 10 * properties.major + properties.minor,
          properties.totalGlobalMem};
}

namespace detail {

/// The capability that kernels were compiled for which a device of `compute_capability` runs: the highest
/// that it has, of those that this program was compiled for.
inline int compiled_capability(int compute_capability) {
#ifdef __CUDA_ARCH_LIST__
  int compiled = 0;
  for (const int architecture : {__CUDA_ARCH_LIST__})
    if (architecture / 10 <= compute_capability) compiled = std::max(compiled, architecture / 10);
  return compiled;
#else
  return compute_capability;
#endif
}

}  // namespace detail

/// Memory that is given back on `device` stays with this process for later allocations. Unless told so, the
/// driver returns it to the system whenever the host waits, and maps new memory again afterwards.
inline void keep_freed_memory(int device) {
  cudaMemPool_t pool = nullptr;
  COREMATCHING_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, device));
  auto kept = std::numeric_limits<std::uint64_t>::max();
  COREMATCHING_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));
}

namespace detail {

struct destroy_stream {
  void operator()(cudaStream_t stream) const { static_cast<void>(cudaStreamDestroy(stream)); }
};
struct destroy_event {
  void operator()(cudaEvent_t event) const { static_cast<void>(cudaEventDestroy(event)); }
};
struct destroy_graph {
  void operator()(cudaGraph_t graph) const { static_cast<void>(cudaGraphDestroy(graph)); }
};
struct destroy_graph_exec {
  void operator()(cudaGraphExec_t graph) const { static_cast<void>(cudaGraphExecDestroy(graph)); }
};
struct destroy_cublas {
  void operator()(cublasHandle_t handle) const { static_cast<void>(cublasDestroy(handle)); }
};

}  // namespace detail

using stream_handle = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, detail::destroy_stream>;
using event_handle = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, detail::destroy_event>;
using graph_handle = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, detail::destroy_graph>;
/// A graph that can be launched.
using graph_exec_handle = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, detail::destroy_graph_exec>;
using cublas_handle = std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, detail::destroy_cublas>;

/// A stream that does not wait for the default stream.
inline stream_handle make_stream() {
  cudaStream_t stream = nullptr;
  COREMATCHING_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream_handle(stream);
}

/// An event that can be timed.
inline event_handle make_event() {
  cudaEvent_t event = nullptr;
  COREMATCHING_CUDA_CHECK(cudaEventCreate(&event));
  return event_handle(event);
}

/// A handle whose sums are binary32 throughout: left to itself, cuBLAS may add the parts of a sum that it has
/// split in the type of a 16-bit result.
inline cublas_handle make_cublas(cudaStream_t stream) {
  cublasHandle_t handle = nullptr;
  COREMATCHING_CUDA_CHECK(cublasCreate(&handle));
  cublas_handle owner(handle);
  COREMATCHING_CUDA_CHECK(cublasSetStream(handle, stream));
  COREMATCHING_CUDA_CHECK(cublasSetMathMode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION));
  return owner;
}

/// What every operation needs to be started: where it is queued, and what shares the work there.
struct context {
  cudaStream_t stream = nullptr;
  cublasHandle_t cublas = nullptr;
  int processors = 1;
  int capability = 0;     // compute capability times ten
  bool overlaps = false;  // kernels may be started early (early_launch.cuh)
};

}  // namespace corematching::cuda

// SPDX-License-Identifier: Apache-2.0
// Operations captured as a CUDA graph, which one call starts again. The arguments of its kernels are those of
// the graph; what may change is what stands in memory, and, told by a counter there, how many rows the
// caches have.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <concepts>
#include <cstdint>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/later_rows.cuh"
#include "corematching/core/cuda_error.cuh"

namespace corematching::cuda {

/// What was captured, or nothing.
struct graph {
  graph_exec_handle graph;
  std::int32_t start = 0;               // what the counter was
  work_counters work;                   // of the operations as they were captured
  work_counters work_of_row;            // more of it for every later row
  std::array<const void*, 6> memory{};  // of the backend's own that they use
};

namespace detail {

/// The graph of what `queue` queues on `stream`, on which nothing is done. Other threads may call CUDA
/// meanwhile. When `queue` throws, the stream is as it was.
template <std::invocable Queue>
graph_handle captured(cudaStream_t stream, Queue&& queue) {
  COREMATCHING_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    queue();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream, &graph));
    static_cast<void>(cudaGetLastError());
    const graph_handle unfinished(graph);
    throw;
  }
  COREMATCHING_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  return graph_handle(graph);
}

inline graph_exec_handle instantiated(const graph_handle& graph) {
  cudaGraphExec_t exec = nullptr;
  COREMATCHING_CUDA_CHECK(cudaGraphInstantiate(&exec, graph.get(), 0));
  return graph_exec_handle(exec);
}

}  // namespace detail
}  // namespace corematching::cuda

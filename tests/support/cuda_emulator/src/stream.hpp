// SPDX-License-Identifier: Apache-2.0
// Streams, events and graphs. An operation is a closure: run at once, or kept by the graph that captures its
// stream.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "cuda_emulator/runtime_types.hpp"

namespace cuda_emulator::detail {

enum class operation_kind : unsigned char { kernel, copy, set, library, event };

struct operation {
  operation_kind kind;
  std::function<void()> run;
};

struct capture {
  std::vector<operation> operations;
  CUstream_st* origin = nullptr;
  bool invalid = false;
};

/// Runs or records an operation of a stream, whose null stands for the default stream. While any stream is
/// captured, the default stream takes nothing.
cudaError_t submit(cudaStream_t stream, operation_kind kind, std::function<void()> run);

/// The streams of a capture are captured no more.
void release_streams(const capture& ended);

}  // namespace cuda_emulator::detail

struct CUstream_st {
  std::shared_ptr<cuda_emulator::detail::capture> captured_by;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time{};
  bool recorded = false, timed = true;
  std::shared_ptr<cuda_emulator::detail::capture> captured_by;
};
struct CUgraph_st {
  std::vector<cuda_emulator::detail::operation> operations;
};
struct CUgraphExec_st {
  std::vector<cuda_emulator::detail::operation> operations;
};

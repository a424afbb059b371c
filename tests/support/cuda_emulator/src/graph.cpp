// SPDX-License-Identifier: Apache-2.0
// Capture of streams. The order in which operations were queued is one that their dependencies allow.
#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"
#include "stream.hpp"

using namespace cuda_emulator::detail;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  api_call call("cudaStreamBeginCapture");
  if (call.fails()) return call.ends();
  if (stream == nullptr) return call.ends(cudaErrorStreamCaptureUnsupported);
  if (stream->captured_by != nullptr) return call.ends(cudaErrorIllegalState);
  stream->captured_by = std::make_shared<capture>();
  stream->captured_by->origin = stream;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  api_call call("cudaStreamEndCapture");
  if (call.fails()) return call.ends();
  *graph = nullptr;
  if (stream == nullptr || stream->captured_by == nullptr) return call.ends(cudaErrorIllegalState);
  if (stream->captured_by->origin != stream) return call.ends(cudaErrorStreamCaptureUnmatched);
  const std::shared_ptr<capture> ended = stream->captured_by;
  release_streams(*ended);
  if (ended->invalid) return call.ends(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{std::move(ended->operations)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  api_call call("cudaStreamIsCapturing");
  if (call.fails()) return call.ends();
  *status = cudaStreamCaptureStatusNone;
  if (stream == nullptr || stream->captured_by == nullptr) return cudaSuccess;
  *status = stream->captured_by->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  api_call call("cudaGraphInstantiate");
  if (call.fails()) return call.ends();
  if (graph == nullptr) return call.ends(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* result) {
  api_call call("cudaGraphExecUpdate");
  if (call.fails()) return call.ends();
  if (exec == nullptr || graph == nullptr) return call.ends(cudaErrorInvalidValue);
  *result = {};
  bool same = exec->operations.size() == graph->operations.size();
  for (std::size_t i = 0; same && i < graph->operations.size(); ++i)
    same = exec->operations[i].kind == graph->operations[i].kind;
  if (!same) {
    result->result = cudaGraphExecUpdateErrorTopologyChanged;
    return call.ends(cudaErrorGraphExecUpdateFailure);
  }
  exec->operations = graph->operations;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  api_call call("cudaGraphLaunch");
  if (call.fails()) return call.ends();
  if (exec == nullptr) return call.ends(cudaErrorInvalidValue);
  for (const operation& each : exec->operations)
    if (const cudaError_t status = submit(stream, each.kind, each.run); status != cudaSuccess)
      return call.ends(status);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

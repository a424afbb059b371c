// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include <algorithm>
#include <set>

#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"

using namespace cuda_emulator::detail;

namespace {

std::set<cudaStream_t>& streams() {
  static auto& all = *new std::set<cudaStream_t>;
  return all;
}

bool exists(cudaStream_t stream) {
  return stream == nullptr || streams().contains(stream);
}

/// What waits for a stream is an error while that stream is captured, and spoils the capture.
cudaError_t wait_for(cudaStream_t stream) {
  if (!exists(stream)) return cudaErrorInvalidResourceHandle;
  const bool captured = stream == nullptr ? any_capture() : stream->captured_by != nullptr;
  if (!captured) return cudaSuccess;
  invalidate_captures();
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace

namespace cuda_emulator::detail {

bool any_capture() {
  return std::any_of(streams().begin(), streams().end(),
                     [](auto* each) { return each->captured_by != nullptr; });
}

void invalidate_captures() {
  for (CUstream_st* each : streams())
    if (each->captured_by != nullptr) each->captured_by->invalid = true;
}

void release_streams(const capture& ended) {
  for (CUstream_st* each : streams())
    if (each->captured_by.get() == &ended) each->captured_by = nullptr;
}

cudaError_t submit(cudaStream_t stream, operation_kind kind, std::function<void()> run) {
  if (!exists(stream)) return cudaErrorInvalidResourceHandle;
  if (stream == nullptr && any_capture()) {
    invalidate_captures();
    return cudaErrorStreamCaptureUnsupported;
  }
  if (stream == nullptr || stream->captured_by == nullptr) {
    run();
    return cudaSuccess;
  }
  if (stream->captured_by->invalid) return cudaErrorStreamCaptureInvalidated;
  stream->captured_by->operations.push_back({kind, std::move(run)});
  return cudaSuccess;
}

}  // namespace cuda_emulator::detail

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  api_call call("cudaStreamCreateWithFlags");
  if (call.fails()) return call.ends();
  if (flags > cudaStreamNonBlocking) return call.ends(cudaErrorInvalidValue);
  *stream = new CUstream_st;
  streams().insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  api_call call("cudaStreamDestroy");
  if (call.fails()) return call.ends();
  if (streams().erase(stream) == 0) return call.ends(cudaErrorInvalidResourceHandle);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  api_call call("cudaStreamSynchronize");
  return call.ends(call.fails() ? call.ends() : wait_for(stream));
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  api_call call("cudaStreamQuery");
  return call.ends(call.fails() ? call.ends() : wait_for(stream));
}

cudaError_t cudaDeviceSynchronize() {
  api_call call("cudaDeviceSynchronize");
  return call.ends(call.fails() ? call.ends() : wait_for(nullptr));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  api_call call("cudaStreamWaitEvent");
  if (call.fails()) return call.ends();
  if (!exists(stream) || event == nullptr) return call.ends(cudaErrorInvalidResourceHandle);
  if (stream != nullptr && event->captured_by != nullptr) stream->captured_by = event->captured_by;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  api_call call("cudaEventCreateWithFlags");
  if (call.fails()) return call.ends();
  *event = new CUevent_st;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  api_call call("cudaEventRecord");
  if (call.fails()) return call.ends();
  if (event == nullptr || !exists(stream)) return call.ends(cudaErrorInvalidResourceHandle);
  if (stream != nullptr && stream->captured_by != nullptr) {
    event->captured_by = stream->captured_by;
    return cudaSuccess;
  }
  event->captured_by = nullptr;
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  api_call call("cudaEventSynchronize");
  if (call.fails()) return call.ends();
  if (event == nullptr) return call.ends(cudaErrorInvalidResourceHandle);
  if (event->captured_by == nullptr) return cudaSuccess;
  invalidate_captures();
  return call.ends(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  api_call call("cudaEventElapsedTime");
  if (call.fails()) return call.ends();
  const bool usable =
      start != nullptr && end != nullptr && start->recorded && end->recorded && start->timed && end->timed;
  if (!usable) return call.ends(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

// SPDX-License-Identifier: Apache-2.0
// Names and texts of statuses.
#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"

using cuda_emulator::detail::state;

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
#define NAME_OF(each) \
  case each: return #each;
    NAME_OF(cudaSuccess)
    NAME_OF(cudaErrorInvalidValue)
    NAME_OF(cudaErrorMemoryAllocation)
    NAME_OF(cudaErrorInitializationError)
    NAME_OF(cudaErrorInvalidConfiguration)
    NAME_OF(cudaErrorInvalidMemcpyDirection)
    NAME_OF(cudaErrorInsufficientDriver)
    NAME_OF(cudaErrorNoDevice)
    NAME_OF(cudaErrorInvalidDevice)
    NAME_OF(cudaErrorInvalidResourceHandle)
    NAME_OF(cudaErrorIllegalState)
    NAME_OF(cudaErrorNotReady)
    NAME_OF(cudaErrorIllegalAddress)
    NAME_OF(cudaErrorHostMemoryAlreadyRegistered)
    NAME_OF(cudaErrorHostMemoryNotRegistered)
    NAME_OF(cudaErrorLaunchFailure)
    NAME_OF(cudaErrorNotSupported)
    NAME_OF(cudaErrorStreamCaptureUnsupported)
    NAME_OF(cudaErrorStreamCaptureInvalidated)
    NAME_OF(cudaErrorStreamCaptureUnmatched)
    NAME_OF(cudaErrorGraphExecUpdateFailure)
    NAME_OF(cudaErrorUnknown)
#undef NAME_OF
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return cudaGetErrorName(status);
  }
}

cudaError_t cudaGetLastError() {
  const std::lock_guard lock(state().mutex);
  const cudaError_t status = state().last_error;
  state().last_error = cudaSuccess;
  return status;
}

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(state().mutex);
  return state().last_error;
}

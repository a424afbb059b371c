// SPDX-License-Identifier: Apache-2.0
// The devices, all alike, and their properties.
#include <algorithm>
#include <cstring>

#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"

using namespace cuda_emulator::detail;

namespace {

constexpr int processors = 4, runtime_version = 12040;

bool exists(int device) {
  return device >= 0 && device < state().asked.device_count;
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  api_call call("cudaGetDeviceCount");
  if (call.fails()) return call.ends();
  *count = state().asked.device_count;
  return call.ends(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int* device) {
  api_call call("cudaGetDevice");
  *device = state().device;
  return call.ends();
}

cudaError_t cudaSetDevice(int device) {
  api_call call("cudaSetDevice");
  if (call.fails()) return call.ends();
  if (!exists(device)) return call.ends(cudaErrorInvalidDevice);
  state().device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  api_call call("cudaGetDeviceProperties");
  if (call.fails()) return call.ends();
  if (!exists(device)) return call.ends(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "CUDA emulator");
  properties->totalGlobalMem = state().asked.device_memory;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  std::copy_n(std::begin({1024, 1024, 64}), 3, properties->maxThreadsDim);
  std::copy_n(std::begin({2147483647, 65535, 65535}), 3, properties->maxGridSize);
  properties->major = 9;
  properties->multiProcessorCount = processors;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->l2CacheSize = 4 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  api_call call("cudaDeviceGetAttribute");
  if (call.fails()) return call.ends();
  if (!exists(device)) return call.ends(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = processors; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    default: return call.ends(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = runtime_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = runtime_version;
  return cudaSuccess;
}

// Memory goes back at once, whatever a pool is told to keep.
struct CUmemPool_st {};

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  api_call call("cudaDeviceGetDefaultMemPool");
  if (call.fails()) return call.ends();
  static CUmemPool_st only;
  *pool = &only;
  return call.ends(exists(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  api_call call("cudaMemPoolSetAttribute");
  if (call.fails()) return call.ends();
  const bool right = pool != nullptr && value != nullptr && attribute == cudaMemPoolAttrReleaseThreshold;
  return call.ends(right ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t) {
  api_call call("cudaMemPoolTrimTo");
  return call.ends(call.fails() ? call.ends() : pool != nullptr ? cudaSuccess : cudaErrorInvalidValue);
}

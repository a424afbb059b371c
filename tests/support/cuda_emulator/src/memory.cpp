// SPDX-License-Identifier: Apache-2.0
// Device memory is memory of the host that is filled with 0xff: NaN as a float, -1 as an integer. Copies
// check that either side is where their kind says.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cuda_emulator/runtime_api.hpp"
#include "state.hpp"
#include "stream.hpp"

using namespace cuda_emulator::detail;

namespace {

constexpr std::size_t alignment = 256;  // what cudaMalloc promises

std::uintptr_t number(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address);
}

void* poisoned(std::size_t bytes) {
  const bool fits = bytes <= SIZE_MAX - alignment;
  void* memory = nullptr;
  // Not rounded up to the alignment, so that AddressSanitizer sees the first byte past the end.
  if (!fits || posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
  std::memset(memory, 0xff, bytes);
  return memory;
}

cudaError_t allocate(void** memory, std::size_t bytes) {
  emulator_state& all = state();
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > all.asked.device_memory || all.used > all.asked.device_memory - bytes)
    return cudaErrorMemoryAllocation;
  *memory = poisoned(bytes);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  all.device_memory[number(*memory)] = bytes;
  all.used += bytes;
  return cudaSuccess;
}

cudaError_t give_back(void* memory) {
  emulator_state& all = state();
  if (memory == nullptr) return cudaSuccess;
  const auto found = all.device_memory.find(number(memory));
  if (found == all.device_memory.end()) {
    ++all.asked.wrong_frees;
    return cudaErrorInvalidValue;
  }
  all.used -= found->second;
  all.device_memory.erase(found);
  std::free(memory);
  return cudaSuccess;
}

/// Memory cannot be taken or given back while a stream is captured: taken asynchronously it would belong to
/// the graph, which is not emulated.
cudaError_t no_capture() {
  if (!any_capture()) return cudaSuccess;
  invalidate_captures();
  return cudaErrorStreamCaptureUnsupported;
}

struct plane {
  std::size_t pitch, width, height;
  std::size_t bytes() const { return width == 0 || height == 0 ? 0 : pitch * (height - 1) + width; }
};

bool is_right_side(const void* memory, std::size_t bytes, bool on_device) {
  if (on_device) return is_device_memory(memory, bytes);
  return memory != nullptr && !touches_device_memory(memory, bytes);
}

cudaError_t check_copy(const void* to, const plane& target, const void* from, const plane& source,
                       cudaMemcpyKind kind) {
  if (target.pitch < target.width || source.pitch < source.width) return cudaErrorInvalidValue;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  if (target.bytes() == 0) return cudaSuccess;
  const bool any = kind == cudaMemcpyDefault;
  const bool to_device =
      any ? touches_device_memory(to, 1) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = any ? touches_device_memory(from, 1)
                               : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool right =
      is_right_side(to, target.bytes(), to_device) && is_right_side(from, source.bytes(), from_device);
  return right ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                 std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const plane target{to_pitch, width, height}, source{from_pitch, width, height};
  if (const cudaError_t status = check_copy(to, target, from, source, kind); status != cudaSuccess)
    return status;
  return submit(stream, operation_kind::copy, [=] {
    if (target.bytes() == 0) return;
    for (std::size_t row = 0; row < height; ++row)
      std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch,
                   width);
  });
}

cudaError_t set(void* to, std::size_t pitch, int byte, std::size_t width, std::size_t height,
                cudaStream_t stream) {
  const plane target{pitch, width, height};
  if (pitch < width) return cudaErrorInvalidValue;
  if (target.bytes() != 0 && !is_device_memory(to, target.bytes())) return cudaErrorInvalidValue;
  return submit(stream, operation_kind::set, [=] {
    if (target.bytes() == 0) return;
    for (std::size_t row = 0; row < height; ++row)
      std::memset(static_cast<char*>(to) + row * pitch, byte, width);
  });
}

}  // namespace

namespace cuda_emulator::detail {

bool is_device_memory(const void* from, std::size_t bytes) {
  const auto& all = state().device_memory;
  auto next = all.upper_bound(number(from));
  if (next == all.begin()) return false;
  --next;
  return bytes <= next->second && number(from) - next->first <= next->second - bytes;
}

bool touches_device_memory(const void* from, std::size_t bytes) {
  const auto& all = state().device_memory;
  const auto next = all.lower_bound(number(from) + bytes);
  if (next == all.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return number(from) < begin + size;
}

}  // namespace cuda_emulator::detail

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  api_call call("cudaMalloc");
  if (call.fails()) return call.ends();
  const cudaError_t status = no_capture();
  return call.ends(status != cudaSuccess ? status : allocate(memory, bytes));
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  api_call call("cudaMallocAsync");
  if (call.fails()) return call.ends();
  const cudaError_t status = no_capture();
  return call.ends(status != cudaSuccess ? status : allocate(memory, bytes));
}

cudaError_t cudaFree(void* memory) {
  api_call call("cudaFree");
  if (call.fails()) return call.ends();
  const cudaError_t status = no_capture();
  return call.ends(status != cudaSuccess ? status : give_back(memory));
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  api_call call("cudaFreeAsync");
  if (call.fails()) return call.ends();
  const cudaError_t status = no_capture();
  return call.ends(status != cudaSuccess ? status : give_back(memory));
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  api_call call("cudaHostAlloc");
  if (call.fails()) return call.ends();
  *memory = bytes == 0 ? nullptr : poisoned(bytes);
  if (bytes != 0 && *memory == nullptr) return call.ends(cudaErrorMemoryAllocation);
  if (bytes != 0) state().pinned_memory[number(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes, unsigned flags) {
  api_call call("cudaMallocHost");
  return call.fails() ? call.ends() : cudaHostAlloc(memory, bytes, flags);
}

cudaError_t cudaFreeHost(void* memory) {
  api_call call("cudaFreeHost");
  if (call.fails()) return call.ends();
  if (memory == nullptr) return cudaSuccess;
  if (state().pinned_memory.erase(number(memory)) == 0) {
    ++state().asked.wrong_frees;
    return call.ends(cudaErrorInvalidValue);
  }
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* memory, std::size_t bytes, unsigned) {
  api_call call("cudaHostRegister");
  if (call.fails()) return call.ends();
  if (memory == nullptr || bytes == 0) return call.ends(cudaErrorInvalidValue);
  const bool added = state().pinned_memory.emplace(number(memory), bytes).second;
  return call.ends(added ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void* memory) {
  api_call call("cudaHostUnregister");
  if (call.fails()) return call.ends();
  const bool known = state().pinned_memory.erase(number(memory)) == 1;
  return call.ends(known ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  api_call call("cudaMemGetInfo");
  if (call.fails()) return call.ends();
  *total = state().asked.device_memory;
  *free = *total - std::min(*total, state().used);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  api_call call("cudaMemcpyAsync");
  return call.fails() ? call.ends() : call.ends(copy(to, bytes, from, bytes, bytes, 1, kind, stream));
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  api_call call("cudaMemcpy");
  return call.fails() ? call.ends() : call.ends(copy(to, bytes, from, bytes, bytes, 1, kind, nullptr));
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  api_call call("cudaMemcpy2DAsync");
  if (call.fails()) return call.ends();
  return call.ends(copy(to, to_pitch, from, from_pitch, width, height, kind, stream));
}

cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t width, std::size_t height, cudaMemcpyKind kind) {
  api_call call("cudaMemcpy2D");
  if (call.fails()) return call.ends();
  return call.ends(copy(to, to_pitch, from, from_pitch, width, height, kind, nullptr));
}

cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream) {
  api_call call("cudaMemsetAsync");
  return call.fails() ? call.ends() : call.ends(set(to, bytes, byte, bytes, 1, stream));
}

cudaError_t cudaMemset(void* to, int byte, std::size_t bytes) {
  api_call call("cudaMemset");
  return call.fails() ? call.ends() : call.ends(set(to, bytes, byte, bytes, 1, nullptr));
}

cudaError_t cudaMemset2DAsync(void* to, std::size_t pitch, int byte, std::size_t width, std::size_t height,
                              cudaStream_t stream) {
  api_call call("cudaMemset2DAsync");
  return call.fails() ? call.ends() : call.ends(set(to, pitch, byte, width, height, stream));
}

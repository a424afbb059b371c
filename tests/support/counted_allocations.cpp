// SPDX-License-Identifier: Apache-2.0
#include "support/counted_allocations.hpp"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> calls{0};
thread_local int until_failure = -1;

}  // namespace

namespace support {

std::int64_t allocations() {
  return calls;
}

void fail_allocation(int after) {
  until_failure = after;
}

}  // namespace support

void* operator new(std::size_t bytes) {
  ++calls;
  if (until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc();
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++calls;
  return std::malloc(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}

extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++calls;
  return memalign(alignment, bytes);
}

// SPDX-License-Identifier: Apache-2.0
// Memory that the system is asked to back with huge pages: streams over gigabytes otherwise wait for address
// translation.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "corematching/core/error.hpp"

namespace corematching::bench {

/// At least `bytes` bytes, not initialised. Throws `error` when the memory is not to be had.
inline std::shared_ptr<std::byte> huge_block(std::size_t bytes) {
  constexpr std::size_t page = std::size_t{2} << 20;
  const std::size_t rounded = (bytes + page - 1) / page * page;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(page, rounded));
  require(memory != nullptr, "out of memory: ", rounded, " bytes asked for");
#ifdef MADV_HUGEPAGE
  static_cast<void>(madvise(memory, rounded, MADV_HUGEPAGE));  // a wish: it is as correct without
#endif
  return {memory, [](std::byte* block) { std::free(block); }};
}

}  // namespace corematching::bench

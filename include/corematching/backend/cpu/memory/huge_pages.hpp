// SPDX-License-Identifier: Apache-2.0
// Memory for weights and large scratch: on huge pages where the system grants them, since decode walks
// through gigabytes of it and would otherwise wait for address translations.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>

#include "corematching/core/error.hpp"

namespace corematching::cpu {

inline constexpr std::size_t huge_page = std::size_t{2} << 20;  // bytes

// Not `detail`: that stands in the inline namespace of the instruction set, and a second one of this name
// beside it would make both ambiguous, depending on which header comes first.
namespace pages {

// At least `bytes` of mapped memory that begin at a multiple of huge_page; null where there is none.
inline std::shared_ptr<std::byte> mapped_memory(std::size_t bytes) {
  const std::size_t length = bytes + huge_page;
  void* const mapped = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(mapped);
  std::byte* const begin =
      static_cast<std::byte*>(mapped) + ((address + huge_page - 1) / huge_page * huge_page - address);
#ifdef MADV_HUGEPAGE
  // Whole pages only: a huge page behind the end would take memory that nobody uses.
  static_cast<void>(::madvise(begin, bytes / huge_page * huge_page, MADV_HUGEPAGE));
#endif
  return {begin, [mapped, length](std::byte*) { ::munmap(mapped, length); }};
}

}  // namespace pages

/// `bytes` of memory that goes back to the system with its last owner. Throws `error` if it is not to be had.
inline std::shared_ptr<std::byte> weight_memory(std::size_t bytes) {
  constexpr std::size_t cache_line = 64;
  require(bytes <= std::numeric_limits<std::size_t>::max() - huge_page, "out of memory: ", bytes,
          " bytes asked for");
  const std::size_t rounded = (bytes + cache_line - 1) / cache_line * cache_line;
  std::shared_ptr<std::byte> memory;
  if (bytes >= huge_page) {
    memory = pages::mapped_memory(bytes);
  } else {
    memory = {static_cast<std::byte*>(std::aligned_alloc(cache_line, rounded)),
              [](std::byte* block) { std::free(block); }};
  }
  require(memory != nullptr, "out of memory: ", bytes, " bytes asked for");
  return memory;
}

}  // namespace corematching::cpu

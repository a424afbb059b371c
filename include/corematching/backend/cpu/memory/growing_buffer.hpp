// SPDX-License-Identifier: Apache-2.0
// Scratch memory of one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>

#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {

/// Grows to the largest size asked for and keeps it, so that a steady state allocates nothing. Having grown
/// once it takes a quarter more each time, for sizes that go up by one with every token.
template <class T = float>
class growing_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  /// Throws `error` when the memory is not to be had.
  T* at_least(index size) {
    if (size > size_) {
      const index grown = std::max(size, size_ + size_ / 4);
      memory_ = weight_memory(static_cast<std::size_t>(grown) * sizeof(T));
      size_ = grown;
    }
    return reinterpret_cast<T*>(memory_.get());
  }

 private:
  std::shared_ptr<std::byte> memory_;
  index size_ = 0;
};

}  // namespace corematching::cpu

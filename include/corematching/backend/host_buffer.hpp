// SPDX-License-Identifier: Apache-2.0
// Host memory for tensors: aligned to cache lines, not initialised, freed with its owner.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <type_traits>

#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

template <class T>
class host_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  host_buffer() = default;

  /// Throws `error` when the memory is not to be had.
  explicit host_buffer(index size) : size_(size) {
    if (size == 0) return;
    constexpr std::size_t alignment = 64;
    require(size > 0 && size <= (std::numeric_limits<index>::max() - index{alignment}) / index{sizeof(T)},
            "out of memory: ", size, " elements of ", sizeof(T), " bytes asked for");
    const std::size_t bytes =
        (static_cast<std::size_t>(size) * sizeof(T) + alignment - 1) / alignment * alignment;
    memory_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
    require(memory_ != nullptr, "out of memory: ", bytes, " bytes asked for");
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  index size() const { return memory_ ? size_ : 0; }  // of what was moved away, nothing
  vector_view<T> view() { return {data(), size_}; }
  vector_view<const T> view() const { return {data(), size_}; }

 private:
  struct release {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, release> memory_;
  index size_ = 0;
};

}  // namespace corematching

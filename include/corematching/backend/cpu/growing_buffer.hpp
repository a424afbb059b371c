// SPDX-License-Identifier: Apache-2.0
// Scratch memory of one thread.
#pragma once

#include <algorithm>

#include "corematching/backend/cpu/buffer.hpp"

namespace corematching::cpu {

/// Grows to the largest size asked for and keeps it, so that a steady state allocates nothing. Having grown
/// once it takes a quarter more each time, for sizes that go up by one with every token.
template <class T = float>
class growing_buffer {
 public:
  T* at_least(index size) {
    if (size > storage_.size()) storage_ = buffer<T>(std::max(size, storage_.size() + storage_.size() / 4));
    return storage_.data();
  }

 private:
  buffer<T> storage_;
};

}  // namespace corematching::cpu

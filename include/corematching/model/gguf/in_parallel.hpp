// SPDX-License-Identifier: Apache-2.0
// Work on plain memory that several threads share while a model is loaded, where no backend's pool is at
// hand.
#pragma once

#include <algorithm>
#include <thread>
#include <vector>

#include "corematching/core/index.hpp"

namespace corematching {

/// Calls body(first, last), which must not throw, for parts of 0..count, each on a thread of its own.
template <class Body>
void in_parallel(int threads, index count, Body&& body) {
  const index parts = std::clamp<index>(threads, 1, std::max<index>(count, 1));
  std::vector<std::thread> others;
  for (index i = 1; i < parts; ++i)
    others.emplace_back(
        [&body, first = count * i / parts, last = count * (i + 1) / parts] { body(first, last); });
  body(index{0}, count / parts);
  for (std::thread& other : others) other.join();
}

}  // namespace corematching

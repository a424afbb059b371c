// SPDX-License-Identifier: Apache-2.0
// Tokens of a prompt that are still alive while it passes through the layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "corematching/backend/backend.hpp"

namespace corematching::detail {

/// Their positions in the prompt, and those that they are rotated by.
template <backend B>
struct alive_tokens {
  alive_tokens(B& be, index tokens, std::int32_t start)
      : original(static_cast<std::size_t>(tokens)),
        placed(be.template allocate<std::int32_t>(tokens)),
        first(start),
        end(start + static_cast<std::int32_t>(tokens)) {
    std::iota(original.begin(), original.end(), start);
    rotary = original;
    place(be);
  }
  void place(B& be) { be.upload(device_view(), {rotary.data(), std::ssize(rotary)}); }
  vector_view<std::int32_t, typename B::space> device_view() { return {placed.data(), std::ssize(rotary)}; }

  std::vector<std::int32_t> original;
  std::vector<std::int32_t> rotary;
  typename B::template buffer<std::int32_t> placed;  // rotary, in the backend's memory
  std::int32_t first;
  std::int32_t end;
  bool renumbered = false;
};

}  // namespace corematching::detail

// SPDX-License-Identifier: Apache-2.0
// Which sequences may run at once: those whose keys and values fit into a budget together, counted before
// they begin, at what each may need at most. What runs therefore never has to stop for memory.
#pragma once

#include <cassert>
#include <cstdint>

#include "corematching/core/dtype.hpp"
#include "corematching/model/llama/config.hpp"

namespace corematching {

/// Bytes of keys and values of `tokens` tokens in all layers.
inline std::uint64_t cache_bytes_of(const llama_config& config, index tokens, dtype cache_type) {
  const index row = config.kv_heads * config.head_dim;
  return 2 * static_cast<std::uint64_t>(config.layers) *
         static_cast<std::uint64_t>(stored_bytes(cache_type, tokens, row));
}

class memory_budget {
 public:
  explicit memory_budget(std::uint64_t limit) : limit_(limit) {}

  std::uint64_t limit() const { return limit_; }
  std::uint64_t taken() const { return taken_; }
  /// Whether it would fit if nothing else were there.
  bool can_ever_fit(std::uint64_t bytes) const { return bytes <= limit_; }
  bool fits(std::uint64_t bytes) const { return bytes <= limit_ - taken_; }
  void take(std::uint64_t bytes) {
    assert(fits(bytes));
    taken_ += bytes;
  }
  void give_back(std::uint64_t bytes) {
    assert(bytes <= taken_);
    taken_ -= bytes;
  }

 private:
  std::uint64_t limit_;
  std::uint64_t taken_ = 0;
};

}  // namespace corematching

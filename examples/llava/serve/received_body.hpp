// SPDX-License-Identifier: Apache-2.0
// Bodies of requests, and how much memory all of them may take.
#pragma once

#include <atomic>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace corematching::driver {

/// Bytes that may be held at once. All members may be called by any thread.
class byte_budget {
 public:
  explicit byte_budget(std::size_t most) : most_(most) {}

  bool take(std::size_t bytes) {
    if (used_.fetch_add(bytes) + bytes <= most_) return true;
    used_ -= bytes;
    return false;
  }
  bool fits(std::size_t bytes) const { return used_ + bytes <= most_; }
  void give_back(std::size_t bytes) { used_ -= bytes; }
  std::size_t used() const { return used_; }

 private:
  std::size_t most_;
  std::atomic<std::size_t> used_ = 0;
};

/// A body, whose bytes are taken from a budget as they arrive: what a client announces costs nothing.
class received_body {
 public:
  explicit received_body(byte_budget& from) : from_(&from) {}
  received_body(received_body&& other) noexcept
      : from_(other.from_), text_(std::exchange(other.text_, {})), taken_(std::exchange(other.taken_, 0)) {}
  received_body& operator=(received_body&&) = delete;
  ~received_body() { release(); }

  /// False, and nothing added, where all bodies together would be too long.
  bool append(std::string_view more) {
    if (!from_->take(more.size())) return false;
    taken_ += more.size();
    text_.append(more);
    return true;
  }
  std::string_view text() const { return text_; }
  /// It was read, and its memory is given back.
  void release() {
    std::string().swap(text_);
    from_->give_back(std::exchange(taken_, 0));
  }

 private:
  byte_budget* from_;
  std::string text_;
  std::size_t taken_ = 0;
};

}  // namespace corematching::driver

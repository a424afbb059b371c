// SPDX-License-Identifier: Apache-2.0
// All clients of a server. There is a thread for each, and so many of them: where a further client comes and
// no thread is free, the one that has kept its thread waiting the longest has to go.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "llava/serve/connection.hpp"

namespace corematching::driver {

class connections {
 public:
  /// A client's place among them, for as long as the object lives.
  class place {
   public:
    place(connections& all, connection& one) : all_(all), one_(one) {
      const std::lock_guard lock(all_.mutex_);
      all_.open_.push_back(&one_);
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      const std::lock_guard lock(all_.mutex_);
      std::erase(all_.open_, &one_);
      std::erase(all_.cut_, &one_);
    }

   private:
    connections& all_;
    connection& one_;
  };

  /// Cuts off the client that has said nothing, or for `patience` not all that it has to say, for the longest
  /// time; idle ones go first. False where there is none.
  bool cut_slowest(std::chrono::milliseconds patience) {
    const std::lock_guard lock(mutex_);
    const auto now = connection::clock::now();
    connection* slowest = nullptr;
    for (connection* one : open_) {
      const auto at = one->at();
      if (at == connection::stage::answering || std::ranges::count(cut_, one) > 0) continue;
      if (at == connection::stage::receiving && now - one->since() < patience) continue;
      if (slowest == nullptr || rank(*one) < rank(*slowest)) slowest = one;
    }
    if (slowest == nullptr) return false;
    slowest->cut();
    cut_.push_back(slowest);
    ++total_cut_;
    return true;
  }

  std::size_t open() const {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }
  std::size_t total_cut() const {
    const std::lock_guard lock(mutex_);
    return total_cut_;
  }

 private:
  static std::pair<connection::stage, connection::clock::time_point> rank(const connection& one) {
    return {one.at(), one.since()};
  }

  mutable std::mutex mutex_;
  std::vector<connection*> open_;
  std::vector<connection*> cut_;  // that are about to leave
  std::size_t total_cut_ = 0;
};

}  // namespace corematching::driver

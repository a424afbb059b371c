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

  using stage = connection::stage;

  /// Cuts off the client at one of the stages from `first` to `last` that has said nothing, or for `patience`
  /// not all that it has to say, or taken nothing that it is sent, for the longest time; those at earlier
  /// stages go first. False where there is none, or it is `spared`.
  bool cut_slowest(std::chrono::milliseconds patience, stage first = stage::idle, stage last = stage::sending,
                   const connection* spared = nullptr) {
    const std::lock_guard lock(mutex_);
    const auto now = connection::clock::now();
    connection* slowest = nullptr;
    for (connection* one : open_) {
      const auto at = one->at();
      if (at < first || at > last || std::ranges::count(cut_, one) > 0) continue;
      if (at != stage::idle && now - one->since() < patience) continue;
      if (slowest == nullptr || rank(*one) < rank(*slowest)) slowest = one;
    }
    if (slowest == nullptr || slowest == spared) return false;
    slowest->cut();
    cut_.push_back(slowest);
    ++total_cut_;
    return true;
  }

  std::size_t open() const {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }
  /// How many are at that stage.
  std::size_t at(stage where) const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::ranges::count_if(open_, [&](const connection* one) { return one->at() == where; }));
  }
  std::size_t total_cut() const {
    const std::lock_guard lock(mutex_);
    return total_cut_;
  }

 private:
  static std::pair<stage, connection::clock::time_point> rank(const connection& one) {
    return {one.at(), one.since()};
  }

  mutable std::mutex mutex_;
  std::vector<connection*> open_;
  std::vector<connection*> cut_;  // that are about to leave
  std::size_t total_cut_ = 0;
};

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// How much work regular expressions may make of one text. Expressions come from files and texts from anybody;
// some pairs take longer than anybody lives.
#pragma once

#include <time.h>

#include <cstddef>
#include <cstdint>

namespace corematching::text {

/// One for each text that is encoded, whatever it is cut into on the way. Backtracking is counted, which is
/// the same everywhere; what no counter sees, steps that read far ahead and find nothing, this thread's clock
/// does.
class effort {
 public:
  explicit effort(std::size_t text_bytes)
      : steps_(1'000'000 + 1000 * std::uint64_t{text_bytes}),
        end_(now() + 1'000'000'000 + 3'000 * static_cast<std::int64_t>(text_bytes)) {}

  /// Takes `steps` off, and says whether so many were left.
  bool spend(std::uint64_t steps) {
    // Reading the clock costs as much as a short match.
    constexpr std::uint64_t steps_between_looks = 256;
    since_look_ += steps;
    if (since_look_ >= steps_between_looks) {
      since_look_ = 0;
      if (now() > end_) steps_ = 0;
    }
    if (steps > steps_) return false;
    steps_ -= steps;
    return true;
  }

 private:
  // In nanoseconds of processor time: a busy machine is nobody's fault.
  static std::int64_t now() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }

  std::uint64_t steps_;
  std::int64_t end_;
  std::uint64_t since_look_ = 0;
};

}  // namespace corematching::text

// SPDX-License-Identifier: Apache-2.0
// Time spent in a scope.
#pragma once

#include <chrono>

namespace corematching::driver {

/// Adds the seconds of its own life to a sum.
class stopwatch {
 public:
  explicit stopwatch(double& sum) : sum_(sum), start_(clock::now()) {}
  stopwatch(const stopwatch&) = delete;
  stopwatch& operator=(const stopwatch&) = delete;
  ~stopwatch() { sum_ += std::chrono::duration<double>(clock::now() - start_).count(); }

 private:
  using clock = std::chrono::steady_clock;
  double& sum_;
  clock::time_point start_;
};

}  // namespace corematching::driver

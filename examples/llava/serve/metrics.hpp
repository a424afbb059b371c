// SPDX-License-Identifier: Apache-2.0
// Figures of a server in the text format of Prometheus (exposition format, version 0.0.4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "llava/serve/answering.hpp"
#include "llava/serve/chat_answer.hpp"

namespace corematching::driver {

/// What the server itself counts. All members may be called by any thread.
class serve_metrics {
 public:
  /// A request that was answered with `status`.
  void add_status(int status);
  /// An answer that was complete.
  void add_answer(const answer_times& times);
  /// A client that left before its answer was complete.
  void add_vanished();

  /// All of it, with the figures of who answers.
  std::string text(const answering_state& state, const answering_model& model, std::size_t open_connections,
                   std::size_t cut_connections) const;

 private:
  static constexpr std::array<double, 12> bounds{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250};
  struct histogram {
    std::array<std::uint64_t, bounds.size() + 1> counts{};  // the last one is of what is beyond all bounds
    double sum = 0;
    void add(double seconds);
    std::string text(const std::string& name, const std::string& help) const;
  };

  mutable std::mutex mutex_;
  std::map<int, std::uint64_t> statuses_;
  std::uint64_t vanished_ = 0;
  histogram first_token_, total_, waiting_;
};

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// Repeated passes of one kind, and the rates that they came to.
#pragma once

#include <cstddef>
#include <vector>

#include "generation_pass.hpp"

namespace corematching::bench {

/// Passes of one kind, each with the bandwidth that was probed right before and after it.
class measured_passes {
 public:
  explicit measured_passes(const workload& load) : load_(load) {}

  void add(const pass_result& pass, double bytes_per_second) {
    passes_.push_back(pass);
    bandwidths_.push_back(bytes_per_second);
  }

  std::vector<double> prefill_rates() const {
    return each([&](const pass_result& p, double) {
      return static_cast<double>(load_.prompt_tokens()) / p.prefill_seconds;
    });
  }
  std::vector<double> decode_rates() const {
    return each([&](const pass_result& p, double) {
      return static_cast<double>(load_.new_tokens) / p.decode_seconds;
    });
  }
  std::vector<double> bandwidth_shares() const {
    return each([&](const pass_result& p, double bandwidth) {
      return static_cast<double>(p.decode_bytes) / p.decode_seconds / bandwidth;
    });
  }
  std::vector<double> selection_seconds() const {
    return each([](const pass_result& p, double) { return p.selection_seconds; });
  }
  std::vector<double> selection_shares() const {
    return each([](const pass_result& p, double) { return p.selection_seconds / p.prefill_seconds; });
  }
  std::vector<double> bandwidths() const { return bandwidths_; }
  double decode_bytes_per_token() const {
    return static_cast<double>(passes_.front().decode_bytes) / static_cast<double>(load_.new_tokens);
  }
  index cached_tokens() const { return passes_.front().cached_tokens; }

 private:
  template <class Value>
  std::vector<double> each(Value&& value) const {
    std::vector<double> values;
    for (std::size_t i = 0; i < passes_.size(); ++i) values.push_back(value(passes_[i], bandwidths_[i]));
    return values;
  }

  workload load_;
  std::vector<pass_result> passes_;
  std::vector<double> bandwidths_;
};

/// over[i] / under[i]
inline std::vector<double> ratios(const std::vector<double>& over, const std::vector<double>& under) {
  std::vector<double> result;
  for (std::size_t i = 0; i < over.size(); ++i) result.push_back(over[i] / under[i]);
  return result;
}

}  // namespace corematching::bench

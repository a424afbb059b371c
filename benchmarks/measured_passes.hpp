// SPDX-License-Identifier: Apache-2.0
// Repeated passes of one kind, and the rates that they came to.
#pragma once

#include <cstddef>
#include <vector>

#include "generation_pass.hpp"

namespace corematching::bench {

/// What memory and matrix units can do: the limits of decode and of prefill.
struct machine_rates {
  double read_bytes_per_second = 0;
  double product_flops_per_second = 0;  // 0: not measured
};

inline machine_rates mean_of(const machine_rates& a, const machine_rates& b) {
  return {(a.read_bytes_per_second + b.read_bytes_per_second) / 2,
          (a.product_flops_per_second + b.product_flops_per_second) / 2};
}

/// Passes of one kind, each with what was probed right before and after it.
class measured_passes {
 public:
  explicit measured_passes(const workload& load) : load_(load) {}

  void add(const pass_result& pass, const machine_rates& rates) {
    passes_.push_back(pass);
    rates_.push_back(rates);
  }

  std::vector<double> prefill_rates() const {
    return each([&](const pass_result& p, const machine_rates&) {
      return static_cast<double>(load_.prompt_tokens()) / p.prefill_seconds;
    });
  }
  std::vector<double> decode_rates() const {
    return each([&](const pass_result& p, const machine_rates&) {
      return static_cast<double>(load_.new_tokens) / p.decode_seconds;
    });
  }
  std::vector<double> bandwidth_shares() const {
    return each([](const pass_result& p, const machine_rates& limit) {
      return static_cast<double>(p.decode_bytes) / p.decode_seconds / limit.read_bytes_per_second;
    });
  }
  bool has_product_rates() const { return rates_.front().product_flops_per_second > 0; }
  std::vector<double> product_rate_shares() const {
    return each([](const pass_result& p, const machine_rates& limit) {
      return static_cast<double>(p.prefill_flops) / p.prefill_seconds / limit.product_flops_per_second;
    });
  }
  bool has_selection_seconds() const { return passes_.front().selection_seconds > 0; }
  std::vector<double> selection_seconds() const {
    return each([](const pass_result& p, const machine_rates&) { return p.selection_seconds; });
  }
  std::vector<double> selection_shares() const {
    return each(
        [](const pass_result& p, const machine_rates&) { return p.selection_seconds / p.prefill_seconds; });
  }
  std::vector<double> bandwidths() const {
    return each([](const pass_result&, const machine_rates& r) { return r.read_bytes_per_second; });
  }
  std::vector<double> product_rates() const {
    return each([](const pass_result&, const machine_rates& r) { return r.product_flops_per_second; });
  }
  double decode_bytes_per_token() const {
    return static_cast<double>(passes_.front().decode_bytes) / static_cast<double>(load_.new_tokens);
  }
  index cached_tokens() const { return passes_.front().cached_tokens; }

 private:
  template <class Value>
  std::vector<double> each(Value&& value) const {
    std::vector<double> values;
    for (std::size_t i = 0; i < passes_.size(); ++i) values.push_back(value(passes_[i], rates_[i]));
    return values;
  }

  workload load_;
  std::vector<pass_result> passes_;
  std::vector<machine_rates> rates_;
};

/// over[i] / under[i]
inline std::vector<double> ratios(const std::vector<double>& over, const std::vector<double>& under) {
  std::vector<double> result;
  for (std::size_t i = 0; i < over.size(); ++i) result.push_back(over[i] / under[i]);
  return result;
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
// What logits say about the next token, and how two such predictions differ. Sums are in binary64, in the
// order of the vocabulary.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "corematching/core/error.hpp"

namespace corematching::driver {

/// The distribution p(i) = exp(x_i) / sum of exp(x_j) of logits x, which must outlive it.
class prediction {
 public:
  /// Throws `error` where the logits are not finite.
  explicit prediction(std::span<const float> logits)
      : logits_(logits), likeliest_(std::ranges::max_element(logits) - logits.begin()) {
    const double largest = logit(likeliest_);
    double sum = 0;
    for (const float x : logits) sum += std::exp(double{x} - largest);
    log_sum_ = largest + std::log(sum);
    require(std::isfinite(log_sum_), "the logits are not finite");
  }

  std::span<const float> logits() const { return logits_; }

  /// The first one with the largest logit.
  std::int32_t likeliest() const { return static_cast<std::int32_t>(likeliest_); }

  /// -log p(id), in nats.
  double surprise(std::int32_t id) const { return log_sum_ - logit(id); }

  /// KL(this || other) = sum of p_i (log p_i - log q_i), in nats; exactly 0 for the same logits.
  double divergence_to(const prediction& other) const {
    double sum = 0;
    for (std::size_t i = 0; i < logits_.size(); ++i) {
      const double x = logits_[i];
      sum += std::exp(x - log_sum_) * ((x - log_sum_) - (double{other.logits_[i]} - other.log_sum_));
    }
    return sum;
  }

 private:
  double logit(std::ptrdiff_t id) const { return logits_[static_cast<std::size_t>(id)]; }

  std::span<const float> logits_;
  std::ptrdiff_t likeliest_;
  double log_sum_;
};

}  // namespace corematching::driver

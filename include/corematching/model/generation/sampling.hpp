// SPDX-License-Identifier: Apache-2.0
// Choosing the next token from logits: greedily, or at random after temperature, top-k and top-p in this
// order (that of transformers). The same seed gives the same tokens everywhere: nothing of the standard
// library's unspecified distributions is used.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/argmax.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/model/generation/ranked_ids.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

struct sampling_options {
  double temperature = 0;  // 0: greedy; larger is more random
  index top_k = 0;         // 0: no limit
  double top_p = 1;        // in (0, 1]; 1: no limit
  std::uint64_t seed = 0;
  index vocabulary_limit = 0;         // ids from here on are never chosen; 0: no limit
  std::vector<std::int32_t> never{};  // nor are these

  void validate() const {
    require(temperature >= 0 && std::isfinite(temperature), "temperature must be finite and 0 or more, not ",
            temperature);
    require(top_k >= 0, "top-k must be 0 or more, not ", top_k);
    require(top_p > 0 && top_p <= 1, "top-p must lie in (0, 1], not ", top_p);
    require(vocabulary_limit >= 0, "the vocabulary limit must be 0 or more, not ", vocabulary_limit);
    for (const std::int32_t id : never) require(id >= 0, "no token has the id ", id);
  }
};

class sampler {
 public:
  explicit sampler(sampling_options options = {}) : options_(options), random_(options.seed) {
    options.validate();
  }

  /// The next token. Throws `error` if a logit is NaN or all that may be chosen are -inf.
  std::int32_t operator()(std::span<const float> logits) {
    logits = logits.first(static_cast<std::size_t>(allowed(std::ssize(logits))));
    maximum best = checked(argmax({logits.data(), std::ssize(logits)}));
    if (options_.temperature == 0 && may_choose(best.place)) return best.place;
    if (!options_.never.empty()) {
      logits = without_never(logits);
      best = checked(argmax({logits.data(), std::ssize(logits)}));
    }
    return options_.temperature == 0 ? best.place : sample(logits, best.value);
  }

  /// The same for logits [1, vocabulary] in a backend's memory, which only the choice leaves if it is greedy.
  template <backend B>
  std::int32_t operator()(B& be, matrix_view<const float, typename B::space> logits) {
    if (options_.temperature == 0) {
      const std::int32_t best = checked(be.argmax({logits.data, allowed(logits.cols)})).place;
      if (may_choose(best)) return best;
    }
    std::vector<float> values;
    download_values(be, logits, values);
    return (*this)(values);
  }

 private:
  // How many of so many ids may be chosen.
  index allowed(index ids) const {
    require(ids > 0, "there are no logits to choose from");
    return options_.vocabulary_limit > 0 ? std::min(ids, options_.vocabulary_limit) : ids;
  }

  bool may_choose(std::int32_t id) const { return !std::ranges::count(options_.never, id); }

  std::span<const float> without_never(std::span<const float> logits) {
    allowed_.assign(logits.begin(), logits.end());
    for (const std::int32_t id : options_.never)
      if (id < std::ssize(allowed_))
        allowed_[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
    return allowed_;
  }

  static maximum checked(const maximum& best) {
    require(!std::isnan(best.value), "the logit of token ", best.place,
            " is NaN: the model's activations are not finite");
    require(std::isfinite(best.value),
            "the largest logit is infinite: the model's activations are not finite");
    return best;
  }

  // Weights are exp((logit - largest) / temperature); a draw is a walk down the ranking.
  std::int32_t sample(std::span<const float> logits, float largest) {
    detail::ranked_ids ids(logits);
    const auto weight = [&](std::int32_t id) {
      const double below = double{logits[static_cast<std::size_t>(id)]} - double{largest};
      return std::exp(below / options_.temperature);
    };
    std::size_t kept = ids.size();
    double total = 0;
    if (options_.top_k > 0 && options_.top_k < std::ssize(logits)) {
      kept = static_cast<std::size_t>(options_.top_k);
      for (std::size_t rank = 0; rank < kept; ++rank) total += weight(ids[rank]);
    } else {
      for (std::int32_t id = 0; id < std::ssize(logits); ++id) total += weight(id);
    }
    // The shortest prefix whose share of the whole reaches top_p; at least one.
    if (options_.top_p < 1) {
      const double wanted = options_.top_p * total;
      std::size_t passed = 0;
      for (total = 0; passed < kept && total < wanted; ++passed) total += weight(ids[passed]);
      kept = std::max<std::size_t>(passed, 1);
    }
    // Where rounding makes the sum of all weights differ from `total`, the last one that counts is drawn.
    const double target = uniform() * total;
    std::int32_t drawn = ids[0];
    double sum = weight(drawn);
    for (std::size_t rank = 1; rank < kept && sum <= target; ++rank) {
      const double next = weight(ids[rank]);
      if (next == 0) break;
      drawn = ids[rank];
      sum += next;
    }
    return drawn;
  }

  // 53 random bits as a fraction in [0, 1).
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  sampling_options options_;
  std::mt19937_64 random_;
  std::vector<float> allowed_;  // logits without those of `never`
};

}  // namespace corematching

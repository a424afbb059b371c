// SPDX-License-Identifier: Apache-2.0
// Sums over the scored tokens of one run, from which all figures come.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "llava/figures.hpp"

namespace corematching::driver {

struct tally {
  std::uint64_t tokens = 0;  // scored
  double surprise = 0;       // sum of -log p of each token, in nats
  double divergence = 0;     // sum of KL(dense || this) of the prediction of each, in nats
  std::uint64_t agreed = 0;  // tokens of which the dense run holds the same one likeliest

  std::uint64_t items = 0;
  std::uint64_t exact = 0;  // items each token of which was likeliest: the greedy answer is the given one
  std::uint64_t image_tokens = 0;
  std::uint64_t kept_image_tokens = 0;

  std::uint64_t steps = 0;      // of decoding: the first token of an item is foretold by its prompt
  double seconds = 0;           // that these took
  std::uint64_t ffn_bytes = 0;  // of weights of feed-forward blocks, as counted in these steps
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes = 0;

  double perplexity() const { return std::exp(per_token(surprise)); }
  /// The ratio of perplexities, which is finite where either may not be.
  double perplexity_to(const tally& other) const {
    return std::exp(per_token(surprise) - other.per_token(other.surprise));
  }
  double per_token(double sum) const { return ratio(sum, static_cast<double>(tokens)); }
  double per_step(std::uint64_t sum) const {
    return ratio(static_cast<double>(sum), static_cast<double>(steps));
  }
  double per_item(std::uint64_t sum) const {
    return ratio(static_cast<double>(sum), static_cast<double>(items));
  }
  double steps_per_second() const { return ratio(static_cast<double>(steps), seconds); }
};

/// The sums of a tally, by the names that they have in files.
inline constexpr std::array<std::pair<const char*, std::uint64_t tally::*>, 10> counted_sums{
    {{"tokens", &tally::tokens},
     {"agreed", &tally::agreed},
     {"items", &tally::items},
     {"exact", &tally::exact},
     {"image_tokens", &tally::image_tokens},
     {"kept_image_tokens", &tally::kept_image_tokens},
     {"steps", &tally::steps},
     {"ffn_bytes", &tally::ffn_bytes},
     {"weight_bytes", &tally::weight_bytes},
     {"kv_bytes", &tally::kv_bytes}}};
inline constexpr std::array<std::pair<const char*, double tally::*>, 3> real_sums{
    {{"surprise", &tally::surprise}, {"divergence", &tally::divergence}, {"seconds", &tally::seconds}}};

inline tally& operator+=(tally& to, const tally& more) {
  for (const auto& [name, sum] : counted_sums) to.*sum += more.*sum;
  for (const auto& [name, sum] : real_sums) to.*sum += more.*sum;
  return to;
}

}  // namespace corematching::driver

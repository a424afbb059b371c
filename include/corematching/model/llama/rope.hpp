// SPDX-License-Identifier: Apache-2.0
// Frequencies of the rotary position embedding. Source: transformers, modeling_rope_utils.py; computed in
// binary32 as there, since angles grow with the position.
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

#include "corematching/model/llama/config.hpp"

namespace corematching {

namespace detail {

/// LLaMA 3.1: low frequencies are divided by `factor`, high ones stay, in between they are blended.
inline float llama3_frequency(float frequency, const rope_config& rope) {
  const auto original = static_cast<double>(rope.original_max_positions);
  const double wavelength = 2 * std::numbers::pi / static_cast<double>(frequency);
  if (wavelength > original / rope.low_freq_factor) return static_cast<float>(frequency / rope.factor);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  const double blend =
      (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1 - blend) * frequency / rope.factor + blend * frequency);
}

}  // namespace detail

/// theta^(-2i / head_dim) for i < head_dim / 2, scaled and divided as the configuration says; radians per
/// position.
inline std::vector<float> rotary_frequencies(const rope_config& rope, index head_dim) {
  std::vector<float> frequencies;
  for (index i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float divisor = rope.divisors.empty() ? 1.0f : rope.divisors[static_cast<std::size_t>(i)];
    const float frequency = 1.0f / std::pow(static_cast<float>(rope.theta), exponent) / divisor;
    switch (rope.scaling) {
      case rope_scaling::none: frequencies.push_back(frequency); break;
      case rope_scaling::linear: frequencies.push_back(frequency / static_cast<float>(rope.factor)); break;
      case rope_scaling::llama3: frequencies.push_back(detail::llama3_frequency(frequency, rope)); break;
    }
  }
  return frequencies;
}

}  // namespace corematching

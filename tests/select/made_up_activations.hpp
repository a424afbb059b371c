// SPDX-License-Identifier: Apache-2.0
// Activation matrices that provoke what selection can get wrong: many equal values, few or no positive ones,
// odd sizes, and NaN between the rows, so that a read past a row's end shows.
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching::select::test {

template <class T>
T stored(float value) {
  if constexpr (std::is_same_v<T, f16>) return to_f16(value);
  if constexpr (std::is_same_v<T, bf16>) return to_bf16(value);
  if constexpr (std::is_same_v<T, float>) return value;
}

template <class T>
struct activation_matrix {
  index tokens = 0;
  index neurons = 0;
  index stride = 0;
  std::vector<T> values;

  activation_matrix(index rows, index cols, index gap = 0)
      : tokens(rows), neurons(cols), stride(cols + gap), values(rows * stride, stored<T>(std::nanf(""))) {}

  T* row(index x) { return values.data() + x * stride; }
  const T* row(index x) const { return values.data() + x * stride; }
  float at(index x, index n) const { return to_float(row(x)[n]); }
};

/// A whole number in [0, end).
inline std::int32_t below(index end, std::mt19937& random) {
  return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(end));
}

enum class flavour { continuous, quantised, sparse, wide, subnormal, none_positive, equal };
inline constexpr flavour all_flavours[] = {flavour::continuous, flavour::quantised, flavour::sparse,
                                           flavour::wide,       flavour::subnormal, flavour::none_positive,
                                           flavour::equal};

inline float draw(flavour kind, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> small(-6, 6);
  const float value = normal(random);
  switch (kind) {
    case flavour::continuous: return value / (1.0f + std::exp(-value)) * normal(random);  // as SiLU(g)·u
    case flavour::quantised: return static_cast<float>(small(random)) * 0.25f;
    case flavour::sparse: return value > 2.0f ? value : (value > 0.0f ? 0.0f : -0.0f);
    case flavour::wide: return std::ldexp(value, small(random) * 2);
    case flavour::subnormal:
      return static_cast<float>(small(random)) * std::numeric_limits<float>::denorm_min();
    case flavour::none_positive: return value > 0.0f ? -0.0f : value;
    case flavour::equal: return 1.5f;
  }
  return 0.0f;
}

template <class T>
activation_matrix<T> make_activations(index tokens, index neurons, index gap, flavour kind,
                                      std::mt19937& random) {
  activation_matrix<T> made(tokens, neurons, gap);
  for (index x = 0; x < tokens; ++x) {
    for (index n = 0; n < neurons; ++n) made.row(x)[n] = stored<T>(draw(kind, random));
  }
  return made;
}

/// A matrix of random size, gap and flavour; small sizes are likelier, and both sides of 64 and 8 occur.
template <class T>
activation_matrix<T> any_activations(std::mt19937& random) {
  static constexpr index sizes[] = {1,   2,   3,   7,   8,   9,    31,   63,   64,  65,
                                    127, 128, 129, 200, 333, 1000, 2049, 2500, 4103};
  const index neurons = sizes[below(std::ssize(sizes), random)];
  const index tokens = 1 + below(9, random);
  const flavour kind = all_flavours[below(std::ssize(all_flavours), random)];
  return make_activations<T>(tokens, neurons, below(4, random) * 3, kind, random);
}

/// Message of the exception that `action` throws; empty if it throws none.
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const error& e) {
    return e.what();
  }
  return {};
}

}  // namespace corematching::select::test

// SPDX-License-Identifier: Apache-2.0
// Activations as integers. The bit pattern of a positive IEEE number, read as an integer, has the order of
// the number, and a negative number (or -0) has the sign bit set. So selection compares integers only: it is
// exact, the same for every storage type and untouched by compiler flags that relax floating-point rules.
#pragma once

#include <bit>
#include <cstdint>

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"

namespace corematching::select {

/// Signed bit pattern of an activation: key > 0 exactly where a > 0; a < b exactly where key(a) < key(b), for
/// positive a and b of one type.
COREMATCHING_HOST_DEVICE constexpr std::int32_t activation_key(float a) {
  return std::bit_cast<std::int32_t>(a);
}
COREMATCHING_HOST_DEVICE constexpr std::int32_t activation_key(f16 a) {
  return static_cast<std::int16_t>(a.bits);
}
COREMATCHING_HOST_DEVICE constexpr std::int32_t activation_key(bf16 a) {
  return static_cast<std::int16_t>(a.bits);
}

/// Key of +infinity; every NaN lies above it once its sign is cleared.
template <class T>
inline constexpr std::int32_t infinite_key = 0x7f800000;
template <>
inline constexpr std::int32_t infinite_key<f16> = 0x7c00;
template <>
inline constexpr std::int32_t infinite_key<bf16> = 0x7f80;

/// Key without its sign: that of |a|.
template <class T>
COREMATCHING_HOST_DEVICE constexpr std::int32_t magnitude_key(T a) {
  constexpr std::int32_t mask = sizeof(T) == 4 ? 0x7fffffff : 0x7fff;
  return activation_key(a) & mask;
}

/// The same with one key for every NaN, the largest there is: which NaN an operation leaves depends on the
/// processor.
COREMATCHING_HOST_DEVICE constexpr std::int32_t score_key(float a) {
  constexpr std::int32_t nan = infinite_key<float> + 1;
  const std::int32_t key = magnitude_key(a);
  return key < nan ? key : nan;
}

}  // namespace corematching::select

// SPDX-License-Identifier: Apache-2.0
// Exponentials of vectors: a power of two, and a polynomial for what is left of the exponent.
#pragma once

#include "corematching/backend/cpu/simd/f32x16.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

namespace detail {

/// 2^(n + f) for integers n and |f| <= 1/2 and a bit. The polynomial is 1 at 0 and has the smallest relative
/// error of its degree on [-1/2, 1/2], 1.5 * 2^-24.
template <class V>
V power_of_two(V n, V f) {
  V sum = V::broadcast(0x1.5bba14p-10f);
  for (const float c : {0x1.3cea88p-7f, 0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f, 1.0f})
    sum = fma(sum, f, V::broadcast(c));
  return scaled_by_power(sum, n);
}

/// x, or the bound that it is beyond; NaN where x is.
template <class V>
V within(float lowest, V x, float highest) {
  return smaller(V::broadcast(highest), larger(V::broadcast(lowest), x));
}

}  // namespace detail

/// 2^x with a relative error of at most 2^-22. Results below 2^-126 may be 0, those below 2^-150 are; from
/// 2^127.5 on they may be infinite. NaN of NaN.
template <class V>
V exp2(V x) {
  x = detail::within(-160, x, 128);
  const V n = x.rounded();
  return detail::power_of_two(n, x - n);
}

/// e^x, with the bounds of exp2 on the result.
template <class V>
V exp(V x) {
  x = detail::within(-110.9f, x, 88.72284f);
  // ln 2 in two parts; n times the first is exact.
  const V log2_e = V::broadcast(0x1.715476p+0f);
  const V n = (x * log2_e).rounded();
  const V rest = fma(n, V::broadcast(0x1.bd0106p-13f), fma(n, V::broadcast(-0x1.63p-1f), x));
  return detail::power_of_two(n, rest * log2_e);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
// The pointwise nonlinearities on the device: the formulas of backend/cpu/pointwise.hpp in binary32, with the
// accurate exponential, erf and tanh. They are finite for every finite x: where the exponential overflows,
// x / infinity is 0.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <type_traits>
#include <utility>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"

namespace corematching::cuda::detail {

template <activation Act>
__device__ inline float activated(float x) {
  if constexpr (Act == activation::silu) {
    return x / (1 + expf(-x));
  } else if constexpr (Act == activation::quick_gelu) {
    return x / (1 + expf(-1.702f * x));
  } else if constexpr (Act == activation::gelu_erf) {
    return 0.5f * x * (1 + erff(x * 0.70710678f));
  } else {
    static_assert(Act == activation::gelu_tanh);
    return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  }
}

/// The same where a function of its own for each activation is not worth its code: one branch that all
/// threads take alike.
__device__ inline float activated(activation act, float x) {
  switch (act) {
    case activation::silu: return activated<activation::silu>(x);
    case activation::quick_gelu: return activated<activation::quick_gelu>(x);
    case activation::gelu_erf: return activated<activation::gelu_erf>(x);
    case activation::gelu_tanh: return activated<activation::gelu_tanh>(x);
  }
  return x;
}

/// Calls `body` with the activation as a std::integral_constant.
template <class Body>
decltype(auto) visit_activation(activation act, Body&& body) {
  using enum activation;
  switch (act) {
    case silu: return std::forward<Body>(body)(std::integral_constant<activation, silu>{});
    case gelu_erf: return std::forward<Body>(body)(std::integral_constant<activation, gelu_erf>{});
    case gelu_tanh: return std::forward<Body>(body)(std::integral_constant<activation, gelu_tanh>{});
    case quick_gelu: return std::forward<Body>(body)(std::integral_constant<activation, quick_gelu>{});
  }
  fail("unknown activation");
}

}  // namespace corematching::cuda::detail

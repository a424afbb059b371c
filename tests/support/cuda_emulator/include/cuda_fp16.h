// SPDX-License-Identifier: Apache-2.0
// Stands in for the header of the CUDA toolkit: storage of binary16 and its conversions, no arithmetic.
#pragma once

#include "cuda_emulator/small_floats.hpp"
#include "cuda_runtime.h"

struct __half_raw {
  unsigned short x;
};

struct __half {
  unsigned short __x;

  __half() = default;
  __half(__half_raw raw) : __x(raw.x) {}
  __half(float value) : __x(cuda_emulator::detail::to_half(value)) {}
  operator float() const { return cuda_emulator::detail::from_half(__x); }
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline float __half2float(__half value) {
  return value;
}
inline __half __float2half_rn(float value) {
  return {value};
}
inline __half __float2half(float value) {
  return {value};
}
inline __half __ushort_as_half(unsigned short bits) {
  return {__half_raw{bits}};
}
inline unsigned short __half_as_ushort(__half value) {
  return value.__x;
}
inline float2 __half22float2(__half2 values) {
  return {values.x, values.y};
}
inline float __low2float(__half2 values) {
  return values.x;
}
inline float __high2float(__half2 values) {
  return values.y;
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {x, y};
}
inline __half2 __float22half2_rn(float2 values) {
  return {values.x, values.y};
}

// SPDX-License-Identifier: Apache-2.0
// Stands in for the header of the CUDA toolkit: storage of bfloat16 and its conversions, no arithmetic.
#pragma once

#include "cuda_emulator/small_floats.hpp"
#include "cuda_runtime.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};

struct __nv_bfloat16 {
  unsigned short __x;

  __nv_bfloat16() = default;
  __nv_bfloat16(__nv_bfloat16_raw raw) : __x(raw.x) {}
  __nv_bfloat16(float value) : __x(cuda_emulator::detail::to_bfloat16(value)) {}
  operator float() const { return cuda_emulator::detail::from_bfloat16(__x); }
};
using nv_bfloat16 = __nv_bfloat16;

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using nv_bfloat162 = __nv_bfloat162;

inline float __bfloat162float(__nv_bfloat16 value) {
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return {value};
}
inline __nv_bfloat16 __float2bfloat16(float value) {
  return {value};
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return {__nv_bfloat16_raw{bits}};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.__x;
}
inline float2 __bfloat1622float2(__nv_bfloat162 values) {
  return {values.x, values.y};
}
inline float __low2float(__nv_bfloat162 values) {
  return values.x;
}
inline float __high2float(__nv_bfloat162 values) {
  return values.y;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {x, y};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 values) {
  return {values.x, values.y};
}

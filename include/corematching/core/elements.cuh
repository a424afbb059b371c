// SPDX-License-Identifier: Apache-2.0
// Stored elements as binary32 in registers, and back; several at a time where memory is aligned for it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/core/dtype.hpp"

namespace corematching::cuda::detail {

__device__ inline float widened(float value) {
  return value;
}
__device__ inline float widened(f16 value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ inline float widened(bf16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

/// Rounds to nearest, ties to even.
template <class T>
__device__ T narrowed(float value);
template <>
__device__ inline float narrowed<float>(float value) {
  return value;
}
template <>
__device__ inline f16 narrowed<f16>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}
template <>
__device__ inline bf16 narrowed<bf16>(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}

/// Elements that one 16-byte load brings.
template <class T>
inline constexpr int per_load = 16 / static_cast<int>(sizeof(T));

template <class T>
__host__ __device__ inline bool is_aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

/// Four values, rounded, to an address that is a multiple of the size of four elements.
__device__ inline void store_four(const float* values, float* to) {
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
}
__device__ inline void store_four(const float* values, f16* to) {
  union {
    uint2 whole;
    f16 parts[4];
  } stored;
#pragma unroll
  for (int i = 0; i < 4; ++i) stored.parts[i] = narrowed<f16>(values[i]);
  *reinterpret_cast<uint2*>(to) = stored.whole;
}

/// per_load<T> elements from an address that is a multiple of 16 bytes.
template <class T>
__device__ inline void load_widened(const T* from, float (&to)[per_load<T>]) {
  union {
    uint4 whole;
    T parts[per_load<T>];
  } loaded{*reinterpret_cast<const uint4*>(from)};
#pragma unroll
  for (int i = 0; i < per_load<T>; ++i) to[i] = widened(loaded.parts[i]);
}

}  // namespace corematching::cuda::detail

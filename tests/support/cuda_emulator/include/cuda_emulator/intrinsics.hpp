// SPDX-License-Identifier: Apache-2.0
// Intrinsic functions of one thread. There is no atomicAdd of floats: its sums would depend on the order of
// threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "language.hpp"

// __expf, __logf, __sinf, __cosf, __powf: glibc's <math.h> declares them, the emulator's library has their
// bodies.

inline float rsqrtf(float value) {
  return 1.0f / std::sqrt(value);
}
inline float __frsqrt_rn(float value) {
  return rsqrtf(value);
}
inline float __fsqrt_rn(float value) {
  return std::sqrt(value);
}
inline float __frcp_rn(float value) {
  return 1.0f / value;
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __saturatef(float value) {
  return value > 0 ? std::fmin(value, 1.0f) : 0.0f;
}

inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline float __int2float_rn(int value) {
  return static_cast<float>(value);
}
inline float __uint2float_rn(unsigned value) {
  return static_cast<float>(value);
}
inline int __float2int_rn(float value) {
  return static_cast<int>(std::rint(value));
}

inline int __popc(unsigned bits) {
  return std::popcount(bits);
}
inline int __popcll(unsigned long long bits) {
  return std::popcount(bits);
}
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline int __ffsll(long long bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(bits)) + 1;
}
inline int __clz(int bits) {
  return std::countl_zero(static_cast<unsigned>(bits));
}
inline int __clzll(long long bits) {
  return std::countl_zero(static_cast<unsigned long long>(bits));
}
inline unsigned __brev(unsigned bits) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (bits >> i & 1u) << (31 - i);
  return reversed;
}

template <class T>
T __ldg(const T* from) {
  return *from;
}

namespace cuda_emulator::detail {

template <class T>
concept atomic_integer = std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
    std::is_same_v<T, unsigned long long> || std::is_same_v<T, long long>;

/// No other thread runs meanwhile, so that replacing a value is atomic.
template <class T>
T replace(T* at, T by) {
  const T old = *at;
  *at = by;
  return old;
}

}  // namespace cuda_emulator::detail

template <cuda_emulator::detail::atomic_integer T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  using wraps = std::make_unsigned_t<T>;
  return cuda_emulator::detail::replace(at,
                                        static_cast<T>(static_cast<wraps>(*at) + static_cast<wraps>(value)));
}
template <cuda_emulator::detail::atomic_integer T>
T atomicSub(T* at, std::type_identity_t<T> value) {
  using wraps = std::make_unsigned_t<T>;
  return cuda_emulator::detail::replace(at,
                                        static_cast<T>(static_cast<wraps>(*at) - static_cast<wraps>(value)));
}
template <cuda_emulator::detail::atomic_integer T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, std::max(*at, value));
}
template <cuda_emulator::detail::atomic_integer T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, std::min(*at, value));
}
template <cuda_emulator::detail::atomic_integer T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, *at | value);
}
template <cuda_emulator::detail::atomic_integer T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, *at & value);
}
template <cuda_emulator::detail::atomic_integer T>
T atomicXor(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, *at ^ value);
}
template <cuda_emulator::detail::atomic_integer T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return cuda_emulator::detail::replace(at, value);
}
template <cuda_emulator::detail::atomic_integer T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
  return cuda_emulator::detail::replace(at, *at == expected ? desired : *at);
}

// The device's min and max need no std::. Both sides have one type, as everywhere under -Wconversion.
template <class T>
requires std::is_arithmetic_v<T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
requires std::is_arithmetic_v<T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

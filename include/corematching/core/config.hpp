// SPDX-License-Identifier: Apache-2.0
// The one place that asks who is compiling and for which instruction set.
#pragma once

#if defined(__CUDACC__)
#define COREMATCHING_HOST_DEVICE __host__ __device__
#else
#define COREMATCHING_HOST_DEVICE
#endif

// A header-only library is compiled with its user's flags. Everything whose code depends on the instruction
// set lives in an inline namespace of this name, so that two translation units built with different -march
// flags never share one weak symbol.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(COREMATCHING_NO_SIMD)
#define COREMATCHING_CPU_ISA avx2
#define COREMATCHING_HAS_AVX2 1
#define COREMATCHING_HAS_NEON 0
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN) && \
    !defined(COREMATCHING_NO_SIMD)
#if defined(__ARM_FEATURE_DOTPROD)
#define COREMATCHING_CPU_ISA neon_dotprod
#else
#define COREMATCHING_CPU_ISA neon
#endif
#define COREMATCHING_HAS_AVX2 0
#define COREMATCHING_HAS_NEON 1
#else
#define COREMATCHING_CPU_ISA scalar
#define COREMATCHING_HAS_AVX2 0
#define COREMATCHING_HAS_NEON 0
#endif
#define COREMATCHING_HAS_SIMD (COREMATCHING_HAS_AVX2 || COREMATCHING_HAS_NEON)

// nvcc warns of conversions that a constraint forbids as if they could not be called.
#if defined(__CUDACC__)
#pragma nv_diag_suppress 554
#endif

// Keeps the operation that made a vector register's value where the source has it. Left alone, compilers move
// the multiplications of long unrolled loops away from their additions and run out of registers.
#if defined(__GNUC__) && COREMATCHING_HAS_NEON
#define COREMATCHING_PIN(lanes) asm volatile("" : "+w"(lanes))
#elif defined(__GNUC__)
#define COREMATCHING_PIN(lanes) asm volatile("" : "+x"(lanes))
#else
#define COREMATCHING_PIN(lanes) static_cast<void>(0)
#endif

// In front of a loop: `times` copies of its body. nvcc does not know the pragma.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define COREMATCHING_PRAGMA(text) _Pragma(#text)
#define COREMATCHING_UNROLL(times) COREMATCHING_PRAGMA(GCC unroll times)
#else
#define COREMATCHING_UNROLL(times)
#endif

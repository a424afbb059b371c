// SPDX-License-Identifier: Apache-2.0
// The one place that asks who is compiling and for which instruction set.
#pragma once

#if defined(__CUDACC__)
#define COREMATCHING_HOST_DEVICE __host__ __device__
#else
#define COREMATCHING_HOST_DEVICE
#endif

// Vector instructions that kernels are written for. AVX2 means FMA and F16C too; what comes below builds on
// it: VNNI, dot products of bytes; AVX512, registers of 512 bits with all of F, BW, DQ, VL and VNNI (Ice Lake
// and Zen 4, and newer); AMX, products of whole tiles of bfloat16 (Sapphire Rapids, and newer).
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(COREMATCHING_NO_SIMD)
#define COREMATCHING_HAS_AVX2 1
#else
#define COREMATCHING_HAS_AVX2 0
#endif
#if COREMATCHING_HAS_AVX2 && (defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__)))
#define COREMATCHING_HAS_VNNI 1
#else
#define COREMATCHING_HAS_VNNI 0
#endif
#if COREMATCHING_HAS_AVX2 && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define COREMATCHING_HAS_AVX512 1
#else
#define COREMATCHING_HAS_AVX512 0
#endif
#if COREMATCHING_HAS_AVX512 && defined(__AVX512BF16__) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && \
    defined(__linux__)  // which is asked for the registers
#define COREMATCHING_HAS_AMX 1
#else
#define COREMATCHING_HAS_AMX 0
#endif
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN) && \
    !defined(COREMATCHING_NO_SIMD)
#define COREMATCHING_HAS_NEON 1
#else
#define COREMATCHING_HAS_NEON 0
#endif
#define COREMATCHING_HAS_SIMD (COREMATCHING_HAS_AVX2 || COREMATCHING_HAS_NEON)

// A header-only library is compiled with its user's flags. What depends on the instruction set lives in an
// inline namespace of this name, so that kernels of two translation units with different -march flags are
// different functions. What they inline from elsewhere (the standard library) is not, and a linker
// keeps any one of its copies: only bodies (backend/cpu/body.cpp) really meet in one program.
#if COREMATCHING_HAS_AMX
#define COREMATCHING_CPU_ISA amx
#elif COREMATCHING_HAS_AVX512
#define COREMATCHING_CPU_ISA avx512
#elif COREMATCHING_HAS_VNNI
#define COREMATCHING_CPU_ISA avx2_vnni
#elif COREMATCHING_HAS_AVX2
#define COREMATCHING_CPU_ISA avx2
#elif COREMATCHING_HAS_NEON && defined(__ARM_FEATURE_DOTPROD)
#define COREMATCHING_CPU_ISA neon_dotprod
#elif COREMATCHING_HAS_NEON
#define COREMATCHING_CPU_ISA neon
#else
#define COREMATCHING_CPU_ISA baseline
#endif

// To how many bits products of many tokens with the block formats round tokens where 8 of them are faster:
// 16 is for those who would rather be exact. The same in all files of a program.
#if !defined(COREMATCHING_PREFILL_TOKEN_BITS)
#define COREMATCHING_PREFILL_TOKEN_BITS 8
#elif COREMATCHING_PREFILL_TOKEN_BITS != 8 && COREMATCHING_PREFILL_TOKEN_BITS != 16
#error "COREMATCHING_PREFILL_TOKEN_BITS is 8 or 16"
#endif

// In front of a function that stores through pointers which its loops advance together. Where GCC 12 adds
// such pointers up from an address of zero, it takes what is stored there for stores to null, the function
// for one without effects, and leaves out its calls (seen with -mtune=sapphirerapids). It then asks nothing
// of the function but its type.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define COREMATCHING_OPAQUE [[gnu::noipa]]
#else
#define COREMATCHING_OPAQUE
#endif

// nvcc warns of conversions that a constraint forbids as if they could not be called.
#if defined(__CUDACC__)
#pragma nv_diag_suppress 554
#endif

// An effect that costs nothing, for functions that compilers else drop as having none.
#if defined(__GNUC__)
#define COREMATCHING_KEEP() asm volatile("")
#else
#define COREMATCHING_KEEP() static_cast<void>(0)
#endif

// Rounds the elements of an array to what memory holds of them. Contracted to fused multiply-adds, products
// would depend on the compiler's flags.
#if defined(__GNUC__)
#define COREMATCHING_ROUND(array) asm volatile("" : "+m"(array))
#else
#define COREMATCHING_ROUND(array) static_cast<void>(0)
#endif

// Keeps the operation that made a vector register's value where the source has it. Left alone, compilers move
// the multiplications of long unrolled loops away from their additions and run out of registers.
#if defined(__GNUC__) && COREMATCHING_HAS_NEON
#define COREMATCHING_PIN(lanes) asm volatile("" : "+w"(lanes))
#elif defined(__GNUC__) && COREMATCHING_HAS_AVX512
#define COREMATCHING_PIN(lanes) asm volatile("" : "+v"(lanes))
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

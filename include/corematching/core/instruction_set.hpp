// SPDX-License-Identifier: Apache-2.0
// Which of the instruction sets that kernels are written for (config.hpp) this CPU has and the system grants.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "corematching/core/config.hpp"
#include "corematching/core/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace corematching {

/// By rising speed, of one architecture: `baseline`, code that every x86-64 or other CPU runs, up to amx;
/// neon and neon_dotprod on AArch64.
enum class instruction_set : std::uint8_t { baseline, avx2, avx2_vnni, avx512, amx, neon, neon_dotprod };

inline constexpr instruction_set instruction_sets[] = {
    instruction_set::baseline, instruction_set::avx2, instruction_set::avx2_vnni,   instruction_set::avx512,
    instruction_set::amx,      instruction_set::neon, instruction_set::neon_dotprod};

constexpr const char* name_of(instruction_set set) {
  switch (set) {
    case instruction_set::baseline: return "baseline";
    case instruction_set::avx2: return "avx2";
    case instruction_set::avx2_vnni: return "avx2_vnni";
    case instruction_set::avx512: return "avx512";
    case instruction_set::amx: return "amx";
    case instruction_set::neon: return "neon";
    case instruction_set::neon_dotprod: return "neon_dotprod";
  }
  return "?";
}

/// The inverse of name_of; nothing for a name that it never returns.
constexpr std::optional<instruction_set> instruction_set_named(std::string_view name) {
  for (const instruction_set set : instruction_sets)
    if (name == name_of(set)) return set;
  return std::nullopt;
}

/// What this CPU has, as far as the system saves its registers.
struct cpu_features {
  bool avx2 = false;         // x86-64-v3: AVX2, FMA, F16C, BMI, LZCNT, MOVBE
  bool avx_vnni = false;     // VNNI in registers of 256 bits
  bool avx512 = false;       // x86-64-v4, F, BW, CD, DQ and VL, and VNNI
  bool avx512_bf16 = false;  // conversions that the AMX kernels need
  bool amx = false;          // tiles of bfloat16
  bool neon = false;
  bool neon_dotprod = false;
};

namespace detail {

#if defined(__x86_64__)
// Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID and XGETBV.
struct cpuid_leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // all 0 where the CPU has no such leaf

  explicit cpuid_leaf(unsigned leaf, unsigned part = 0) {
    static_cast<void>(__get_cpuid_count(leaf, part, &eax, &ebx, &ecx, &edx));
  }
};

constexpr bool has_bits(std::uint64_t value, std::initializer_list<int> bits) {
  for (const int bit : bits)
    if ((value >> bit & 1) == 0) return false;
  return true;
}

inline std::uint64_t enabled_registers() {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}
#endif

}  // namespace detail

/// Asks the CPU.
inline cpu_features this_cpu() {
  cpu_features has;
#if defined(__x86_64__)
  using detail::has_bits;
  const detail::cpuid_leaf basic(1), extended(7), more(7, 1), others(0x80000001u);
  constexpr int osxsave = 27;
  if (!has_bits(basic.ecx, {osxsave})) return has;
  const std::uint64_t registers = detail::enabled_registers();
  const bool ymm = has_bits(registers, {1, 2}), zmm = ymm && has_bits(registers, {5, 6, 7});
  // FMA, SSE4.2, MOVBE, POPCNT, AVX, F16C; BMI1, AVX2, BMI2; LZCNT
  has.avx2 = ymm && has_bits(basic.ecx, {12, 20, 22, 23, 28, 29}) && has_bits(extended.ebx, {3, 5, 8}) &&
             has_bits(others.ecx, {5});
  has.avx_vnni = has.avx2 && has_bits(more.eax, {4});
  // F, DQ, CD, BW, VL; VNNI
  has.avx512 =
      has.avx2 && zmm && has_bits(extended.ebx, {16, 17, 28, 30, 31}) && has_bits(extended.ecx, {11});
  has.avx512_bf16 = has.avx512 && has_bits(more.eax, {5});
  // AMX-BF16, AMX-TILE; both kinds of tile registers
  has.amx = has.avx512_bf16 && has_bits(extended.edx, {22, 24}) && has_bits(registers, {17, 18});
#elif defined(__aarch64__)
  has.neon = true;
#if defined(__linux__)
  constexpr unsigned long asimddp = 1ul << 20;  // HWCAP_ASIMDDP of asm/hwcap.h
  has.neon_dotprod = (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
  has.neon_dotprod = true;
#endif
#endif
  return has;
}

/// Whether the system lets this process use AMX's tile registers; Linux wants to be asked
/// (https://docs.kernel.org/arch/x86/xstate.html).
inline bool tiles_allowed() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr int request_permission = 0x1023, tile_data = 18;
  static const bool allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return allowed;
#else
  return false;
#endif
}

/// Whether kernels for `set` run on a CPU with these features. Those for AMX need no tiles to run: without
/// permission for them, AVX-512 computes.
constexpr bool runs_on(const cpu_features& has, instruction_set set) {
  switch (set) {
    case instruction_set::baseline: return true;
    case instruction_set::avx2: return has.avx2;
    case instruction_set::avx2_vnni: return has.avx_vnni;
    case instruction_set::avx512: return has.avx512;
    case instruction_set::amx: return has.avx512_bf16;
    case instruction_set::neon: return has.neon;
    case instruction_set::neon_dotprod: return has.neon_dotprod;
  }
  return false;
}

/// Whether kernels for `set` run here with all that they are for.
inline bool is_granted(const cpu_features& has, instruction_set set) {
  return runs_on(has, set) && (set != instruction_set::amx || (has.amx && tiles_allowed()));
}

/// The fastest of the sets that are granted here.
inline instruction_set best_instruction_set(const cpu_features& has) {
  instruction_set best = instruction_set::baseline;
  for (const instruction_set set : instruction_sets)
    if (is_granted(has, set)) best = set;
  return best;
}

/// Throws `error` where kernels that were compiled for `set` would die on this CPU.
inline void require_instruction_set(instruction_set set) {
  const cpu_features has = this_cpu();
  require(runs_on(has, set), "the kernels were compiled for ", name_of(set),
          ", which this CPU lacks; it has ", name_of(best_instruction_set(has)));
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Kernels of attention with many queries. Sixteen query rows of one key/value head are the lanes of all
// vectors: scores stand as [keys][16 rows] and sums as [elements][16 rows], so both products broadcast
// elements of keys and values as they lie in memory, nothing of them is transposed, and the softmax needs no
// operation across lanes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

#include "corematching/backend/cpu/simd/exponential.hpp"
#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Query rows of a panel: the lanes of f32x16.
inline constexpr index panel_queries = 16;
/// Keys, or elements of values, that one kernel call makes sums of: what the registers hold.
inline constexpr index sums_at_once = COREMATCHING_HAS_AVX512 ? 24 : 6;
/// Keys and values of a chunk, and elements of a row of a chunk; longer rows take several chunks side by
/// side.
inline constexpr index attended_keys = 48;
inline constexpr index attended_elements = 128;

/// sums[c] += sum over k < depth of panel[k] * x[c * Apart + k * Step], 16 rows each.
template <index Apart, index Step, std::size_t Count>
void add_broadcast(std::array<f32x16, Count>& sums, const float* panel, const float* x, index depth) {
  for (index k = 0; k < depth; ++k) {
    const f32x16 rows = f32x16::load(panel + k * panel_queries);
    COREMATCHING_UNROLL(24)
    for (std::size_t c = 0; c < Count; ++c)
      sums[c] = fma(rows, f32x16::broadcast(x[static_cast<index>(c) * Apart + k * Step]), sums[c]);
  }
}

/// scores[c] = q . keys[c] for `Count` rows of a chunk, added to what is there if `more`.
template <std::size_t Count>
[[gnu::noinline]] void score_keys(const float* queries, const float* keys, index depth, bool more,
                                  float* scores) {
  std::array<f32x16, Count> sums;
  COREMATCHING_UNROLL(24)
  for (std::size_t c = 0; c < Count; ++c)
    sums[c] = more ? f32x16::load(scores + static_cast<index>(c) * panel_queries) : f32x16::zero();
  add_broadcast<attended_elements, 1>(sums, queries, keys, depth);
  COREMATCHING_UNROLL(24)
  for (std::size_t c = 0; c < Count; ++c) sums[c].store(scores + static_cast<index>(c) * panel_queries);
}

/// sums[c] = factor * sums[c] + sum over j < keys of weights[j] * values[j][c] for `Count` columns of a
/// chunk.
template <std::size_t Count>
[[gnu::noinline]] void add_values(const float* weights, const float* values, index keys, f32x16 factor,
                                  float* result) {
  std::array<f32x16, Count> sums;
  COREMATCHING_UNROLL(24)
  for (std::size_t c = 0; c < Count; ++c)
    sums[c] = factor * f32x16::load(result + static_cast<index>(c) * panel_queries);
  add_broadcast<1, attended_elements>(sums, weights, values, keys);
  COREMATCHING_UNROLL(24)
  for (std::size_t c = 0; c < Count; ++c) sums[c].store(result + static_cast<index>(c) * panel_queries);
}

/// Calls body(first, size) for groups of nearly equal size that fill 0..count; the size, sums_at_once at
/// most, is a constant.
template <class Body>
void for_groups(index count, Body&& body) {
  const index groups = (count + sums_at_once - 1) / sums_at_once;
  for (index g = 0; g < groups; ++g) {
    const index first = count * g / groups, size = count * (g + 1) / groups - first;
    [&]<std::size_t... Less>(std::index_sequence<Less...>) {
      static_cast<void>(((size == static_cast<index>(Less) + 1 &&
                          (body(first, std::integral_constant<std::size_t, Less + 1>{}), true)) ||
                         ...));
    }
    (std::make_index_sequence<static_cast<std::size_t>(sums_at_once)>{});
  }
}

/// The softmax of sixteen rows that goes on over chunks of scores, which are in units of ln 2.
struct running_softmax {
  float highest[panel_queries];
  float total[panel_queries];

  /// The lowest finite number instead of -infinity: a difference of two of them is a number.
  void reset() {
    std::fill_n(highest, panel_queries, std::numeric_limits<float>::lowest());
    std::fill_n(total, panel_queries, 0.0f);
  }

  /// Of the keys' scores; two at a time, to hide the latency of the comparison.
  static f32x16 largest(const float* scores, index keys) {
    f32x16 even = f32x16::load(scores), odd = even;
    for (index j = 0; j + 1 < keys; j += 2) {
      even = larger(even, f32x16::load(scores + j * panel_queries));
      odd = larger(odd, f32x16::load(scores + (j + 1) * panel_queries));
    }
    return larger(larger(even, odd), f32x16::load(scores + (keys - 1) * panel_queries));
  }

  /// scores[j] = 2^(scores[j] - highest so far). Returns by what the sums of earlier chunks shrink.
  f32x16 add(float* scores, index keys) {
    const f32x16 before = f32x16::load(highest);
    const f32x16 now = larger(before, largest(scores, keys));
    const f32x16 factor = exp2(before - now);
    f32x16 sum = f32x16::load(total) * factor;
    for (index j = 0; j < keys; ++j) {
      const f32x16 weight = exp2(f32x16::load(scores + j * panel_queries) - now);
      weight.store(scores + j * panel_queries);
      sum = sum + weight;
    }
    now.store(highest);
    sum.store(total);
    return factor;
  }
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

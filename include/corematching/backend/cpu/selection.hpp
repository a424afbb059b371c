// SPDX-License-Identifier: Apache-2.0
// The selectors of select/ shared out over the threads of the CPU backend. Frequencies are integers and are
// summed per thread, so the result does not depend on how the tokens were split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/core/core_count.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/core_neurons.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// What one thread counts with.
struct core_tally {
  select::core_scratch scratch;
  std::vector<std::int32_t> frequency;
};

/// Γ of the rows first..last.
inline void mark_activated(matrix_view<std::uint64_t> bits, vector_view<std::int32_t> counts,
                           matrix_view<const float> x, index first, index last) {
  select::activated_neurons(x.row(first).data, last - first, x.cols, x.stride, bits.row(first).data,
                            bits.stride, counts.data + first, first);
}

/// The k(x) of the rows `rows` when they all share one, which is what the rule mean_count says.
inline index shared_core_size(vector_view<const std::int32_t> counts, double rho, const auto& row_of,
                              index rows) {
  std::int64_t total = 0;
  for (index i = 0; i < rows; ++i) total += counts[row_of(i)];
  return select::mean_core_size(rho, total, rows);
}

/// f(n) += the number of `rows` (all when empty) x with n in C_ρ(x).
inline void count_core(thread_pool& pool, std::vector<core_tally>& tallies,
                       vector_view<std::int32_t> frequency, matrix_view<const float> x,
                       vector_view<const std::int32_t> counts, double rho, core_count rule,
                       const std::optional<index_view<>>& rows) {
  const auto row_of = [&](index i) { return rows ? index{rows->data[i]} : i; };
  const index counted = rows ? rows->size : x.rows;
  const index shared = rule == core_count::mean_count ? shared_core_size(counts, rho, row_of, counted) : 0;
  tallies.resize(static_cast<std::size_t>(pool.size()));
  for (core_tally& tally : tallies) tally.frequency.assign(static_cast<std::size_t>(frequency.size), 0);
  pool.for_ranges(counted, 1, [&](int thread, index first, index last) {
    core_tally& tally = tallies[static_cast<std::size_t>(thread)];
    for (index i = first; i < last; ++i) {
      const index row = row_of(i);
      const index size = rule == core_count::mean_count ? shared : select::core_size(rho, counts[row]);
      select::count_core_neurons(x.row(row).data, x.cols, size, tally.scratch, tally.frequency.data());
    }
  });
  for (const core_tally& tally : tallies)
    for (index n = 0; n < frequency.size; ++n) frequency[n] += tally.frequency[static_cast<std::size_t>(n)];
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

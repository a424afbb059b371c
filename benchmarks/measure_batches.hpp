// SPDX-License-Identifier: Apache-2.0
// Measured steps of 1, 2, 4, ... sequences over one model on any backend, dense and sparse in turns, each
// between two probes of the memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "batch_passes.hpp"
#include "batch_report.hpp"
#include "measure_model.hpp"
#include "spread.hpp"

namespace corematching::bench {

/// `probe()` gives the machine_rates of the moment.
template <backend B, class Probe>
batch_measurement measure_batches(B& be, const options& o, Probe&& probe) {
  const llama<B> model = make_model(be, o);
  batch_runner<B> runner(be, model, o, *std::ranges::max_element(o.sequences));
  batch_measurement result;
  for (const index count : o.sequences) {
    const double product_rate = cached_product_rate(be, o.random_weights(), count, be.describe().threads);
    std::array<std::vector<double>, 2> rates, shares;  // dense, sparse
    std::array<batch_result, 2> last;
    const int kinds = o.beta < 1 ? 2 : 1;
    for (int i = 0; i < o.repeat; ++i)
      for (int kind = 0; kind < kinds; ++kind) {
        const auto k = static_cast<std::size_t>(kind);
        const machine_rates before = probe();
        last[k] = runner.run(count, kind == 0);
        const machine_rates around = mean_of(before, probe());
        rates[k].push_back(static_cast<double>(last[k].tokens) / last[k].seconds);
        shares[k].push_back(static_cast<double>(last[k].work.weight_bytes + last[k].work.kv_bytes) /
                            last[k].seconds / around.read_bytes_per_second);
      }
    for (std::size_t k = 0; k < static_cast<std::size_t>(kinds); ++k) {
      const spread s = spread_of(rates[k]);
      const auto steps = static_cast<double>(o.load.new_tokens);
      const auto flops = static_cast<double>(last[k].work.flops);
      result.lines.push_back({count, k == 0, s.median, s.least, s.most,
                              static_cast<double>(last[k].work.weight_bytes + last[k].work.kv_bytes) / steps,
                              flops / steps, spread_of(shares[k]).median,
                              flops / static_cast<double>(last[k].tokens) * s.median / product_rate,
                              spread_of(ratios(rates[k], rates[0])).median});
    }
  }
  return result;
}

}  // namespace corematching::bench

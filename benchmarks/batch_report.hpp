// SPDX-License-Identifier: Apache-2.0
// What steps of several sequences came to, for people and for programs.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "llava_bench_options.hpp"

namespace corematching::bench {

/// Steps of `sequences` sequences, dense or not: rates of some passes, medians.
struct batch_line {
  index sequences = 0;
  bool dense = false;
  double tokens_per_second = 0;
  double least = 0, most = 0;
  double bytes_per_step = 0;  // of weights and of caches
  double flops_per_step = 0;
  double bandwidth_share = 0;     // of what memory was probed to give
  double product_rate_share = 0;  // of what the kernels reach with weights in a cache
  double to_dense = 1;            // tokens/s beside the dense passes in turn with these
};

struct batch_measurement {
  std::string device;
  std::vector<batch_line> lines;
};

nlohmann::json json_of(const options& o, const batch_measurement& m);
void print_table(std::ostream& out, const batch_measurement& m);

}  // namespace corematching::bench

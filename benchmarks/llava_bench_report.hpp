// SPDX-License-Identifier: Apache-2.0
// What llava_bench measured, as JSON and as a table.
#pragma once

#include <iosfwd>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "llava_bench_options.hpp"
#include "measured_passes.hpp"

namespace corematching::bench {

/// `dense` is there with --paired only; its pass i then stood next to pass i of `main`.
struct measurement {
  measured_passes main;
  std::optional<measured_passes> dense;
  std::string device;
  int threads = 0;  // of a CPU
};

nlohmann::json json_of(const options& o, const measurement& m);
nlohmann::json json_of(const machine_rates& rates);
void print_rates(std::ostream& out, const machine_rates& rates);
void print_table(std::ostream& out, const measurement& m);

}  // namespace corematching::bench

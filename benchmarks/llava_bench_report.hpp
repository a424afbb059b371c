// SPDX-License-Identifier: Apache-2.0
// What llava_bench measured, as JSON and as a table.
#pragma once

#include <iosfwd>
#include <nlohmann/json.hpp>
#include <optional>

#include "llava_bench_options.hpp"
#include "measured_passes.hpp"

namespace corematching::bench {

/// `dense` is there with --paired only; its pass i then stood next to pass i of `main`.
struct measurement {
  measured_passes main;
  std::optional<measured_passes> dense;
};

nlohmann::json json_of(const options& o, const measurement& m);
void print_table(std::ostream& out, const measurement& m);

}  // namespace corematching::bench

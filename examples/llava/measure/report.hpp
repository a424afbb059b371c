// SPDX-License-Identifier: Apache-2.0
// The figures of a measurement, for people and for programs.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "llava/measure/options.hpp"
#include "llava/measure/tally.hpp"

namespace corematching::driver {

/// Sums over all items.
struct measured_run {
  std::string name;
  std::string text;            // its options; empty for the dense run
  std::optional<index> layer;  // the only one that they apply to
  tally sums;
};

/// Of the items' runs: the dense one, then those of `configurations`.
std::vector<measured_run> summed(const std::vector<std::vector<tally>>& items,
                                 const std::vector<configuration>& configurations);

/// A row for each run; where there are answers also how many were given exactly, and how much was kept of
/// pictures.
void print_table(const std::vector<measured_run>& runs, bool has_answers, std::ostream& out);

/// One JSON object: what was measured, as `identity` says it, and the figures of each run.
std::string report_json(const io::json& identity, const std::vector<measured_run>& runs, bool has_answers);

}  // namespace corematching::driver

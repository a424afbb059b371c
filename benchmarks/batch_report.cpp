// SPDX-License-Identifier: Apache-2.0
#include "batch_report.hpp"

#include <iomanip>
#include <ostream>

namespace corematching::bench {

nlohmann::json json_of(const options& o, const batch_measurement& m) {
  nlohmann::json lines = nlohmann::json::array();
  for (const batch_line& line : m.lines)
    lines.push_back({{"sequences", line.sequences},
                     {"dense", line.dense},
                     {"tokens_per_second", line.tokens_per_second},
                     {"least", line.least},
                     {"most", line.most},
                     {"bytes_per_step", line.bytes_per_step},
                     {"flops_per_step", line.flops_per_step},
                     {"share_of_bandwidth", line.bandwidth_share},
                     {"share_of_product_rate", line.product_rate_share},
                     {"to_dense", line.to_dense}});
  return {
      {"device", m.device}, {"beta", o.beta}, {"weights", name_of(o.random_weights())}, {"batches", lines}};
}

void print_table(std::ostream& out, const batch_measurement& m) {
  out << m.device << "; median (least .. most)\n"
      << "sequences          tokens/s                     GB/step  GFLOP/step  bandwidth  products  to "
         "dense\n"
      << std::fixed;
  for (const batch_line& line : m.lines)
    out << std::setw(9) << line.sequences << (line.dense ? "  dense   " : "  sparse  ")
        << std::setprecision(2) << std::setw(8) << line.tokens_per_second << "  (" << line.least << " .. "
        << line.most << ")" << std::setprecision(3) << std::setw(12) << line.bytes_per_step / 1e9
        << std::setw(12) << line.flops_per_step / 1e9 << std::setprecision(0) << std::setw(9)
        << 100 * line.bandwidth_share << " %" << std::setw(8) << 100 * line.product_rate_share << " %"
        << std::setprecision(2) << std::setw(10) << line.to_dense << '\n';
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
#include "llava_bench_report.hpp"

#include <iomanip>
#include <ostream>

#include "spread.hpp"

namespace corematching::bench {
namespace {

nlohmann::json json_of(const spread& s) {
  return {{"median", s.median}, {"min", s.least}, {"max", s.most}};
}

nlohmann::json json_of(const measured_passes& passes) {
  nlohmann::json result = {{"prefill_tokens_per_second", spread_of(passes.prefill_rates()).median},
                           {"decode_tokens_per_second", spread_of(passes.decode_rates()).median},
                           {"decode_bytes_per_token", passes.decode_bytes_per_token()},
                           {"decode_share_of_bandwidth", spread_of(passes.bandwidth_shares()).median},
                           {"cached_tokens", passes.cached_tokens()},
                           {"read_bytes_per_second", json_of(spread_of(passes.bandwidths()))},
                           {"spread",
                            {{"prefill_tokens_per_second", json_of(spread_of(passes.prefill_rates()))},
                             {"decode_tokens_per_second", json_of(spread_of(passes.decode_rates()))}}}};
  if (passes.has_selection_seconds()) {
    result["selection_seconds"] = spread_of(passes.selection_seconds()).median;
    result["selection_share_of_prefill"] = spread_of(passes.selection_shares()).median;
  }
  if (passes.has_product_rates()) {
    result["prefill_share_of_product_rate"] = spread_of(passes.product_rate_shares()).median;
    result["product_flops_per_second"] = json_of(spread_of(passes.product_rates()));
  }
  return result;
}

void print_line(std::ostream& out, const char* what, const char* unit, const spread& s, double scale = 1) {
  out << std::left << std::setw(34) << what << std::right << std::fixed << std::setprecision(2)
      << std::setw(10) << s.median * scale << "  (" << s.least * scale << " .. " << s.most * scale << ") "
      << unit << '\n';
}

void print_passes(std::ostream& out, const measured_passes& passes) {
  print_line(out, "  prefill", "tokens/s", spread_of(passes.prefill_rates()));
  if (passes.has_product_rates())
    print_line(out, "    share of probed product rate", "%", spread_of(passes.product_rate_shares()), 100);
  if (passes.has_selection_seconds())
    print_line(out, "    of this, selection", "%", spread_of(passes.selection_shares()), 100);
  print_line(out, "  decode", "tokens/s", spread_of(passes.decode_rates()));
  print_line(out, "    share of probed bandwidth", "%", spread_of(passes.bandwidth_shares()), 100);
  print_line(out, "  memory read probe", "GB/s", spread_of(passes.bandwidths()), 1e-9);
  if (passes.has_product_rates())
    print_line(out, "  product probe", "TFLOP/s", spread_of(passes.product_rates()), 1e-12);
  out << "  " << passes.decode_bytes_per_token() / 1e9 << " GB read for a token, " << passes.cached_tokens()
      << " prompt tokens cached in the last layer\n";
}

}  // namespace

nlohmann::json json_of(const machine_rates& rates) {
  nlohmann::json result = {{"read_bytes_per_second", rates.read_bytes_per_second}};
  if (rates.product_flops_per_second > 0) result["product_flops_per_second"] = rates.product_flops_per_second;
  return result;
}

void print_rates(std::ostream& out, const machine_rates& rates) {
  out << rates.read_bytes_per_second / 1e9 << " GB/s read\n";
  if (rates.product_flops_per_second > 0)
    out << rates.product_flops_per_second / 1e12 << " TFLOP/s multiplied\n";
}

nlohmann::json json_of(const options& o, const measurement& m) {
  nlohmann::json result = json_of(m.main);
  result["device"] = m.device;
  if (o.cuda_device) {
    result["graph"] = o.graph;
    result["overlap"] = o.overlap;
  } else {
    result["threads"] = m.threads;
  }
  result["text_tokens"] = o.load.text_tokens;
  result["image_tokens"] = o.load.image_tokens;
  result["new_tokens"] = o.load.new_tokens;
  result["kv_cache"] = name_of(o.load.cache_type);
  result["beta"] = o.beta;
  if (o.keep) result["keep"] = *o.keep;
  if (!m.dense) return result;
  result["dense"] = json_of(*m.dense);
  result["prefill_speedup"] = json_of(spread_of(ratios(m.main.prefill_rates(), m.dense->prefill_rates())));
  result["decode_speedup"] = json_of(spread_of(ratios(m.main.decode_rates(), m.dense->decode_rates())));
  return result;
}

void print_table(std::ostream& out, const measurement& m) {
  out << m.device << "; median (least .. most)\n";
  if (m.dense) {
    out << "dense\n";
    print_passes(out, *m.dense);
    out << "sparse\n";
  }
  print_passes(out, m.main);
  if (!m.dense) return;
  out << "sparse against dense\n";
  print_line(out, "  prefill", "times as fast",
             spread_of(ratios(m.main.prefill_rates(), m.dense->prefill_rates())));
  print_line(out, "  decode", "times as fast",
             spread_of(ratios(m.main.decode_rates(), m.dense->decode_rates())));
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/report.hpp"

#include <algorithm>
#include <cstddef>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "llava/figures.hpp"

namespace corematching::driver {
namespace {

using table_row = std::vector<std::string>;

std::string figure(double value, int digits) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

table_row head_row(bool has_answers) {
  table_row row{"",      "tokens",   "perplexity",   "to dense", "KL, nats",
                "top-1", "FFN read", "read a token", "tokens/s"};
  if (has_answers) row.insert(row.end(), {"exact", "image tokens"});
  return row;
}

table_row figures_row(const measured_run& run, const tally& dense, bool has_answers) {
  const tally& sums = run.sums;
  table_row row{run.layer ? "  layer " + std::to_string(*run.layer) : run.name,
                std::to_string(sums.tokens),
                figure(sums.perplexity(), 4),
                figure(sums.perplexity_to(dense), 4),
                figure(sums.per_token(sums.divergence), 5),
                percent(sums.per_token(static_cast<double>(sums.agreed))),
                percent(ratio(sums.per_step(sums.ffn_bytes), dense.per_step(dense.ffn_bytes))),
                bytes(static_cast<std::uint64_t>(sums.per_step(sums.weight_bytes + sums.kv_bytes))),
                figure(sums.steps_per_second(), 2)};
  if (has_answers)
    row.insert(row.end(), {percent(sums.per_item(sums.exact)),
                           figure(sums.per_item(sums.kept_image_tokens), 1) + " of " +
                               figure(sums.per_item(sums.image_tokens), 1)});
  return row;
}

nlohmann::ordered_json figures_json(const measured_run& run, const tally& dense, bool has_answers) {
  const tally& sums = run.sums;
  nlohmann::ordered_json object{{"name", run.name}, {"options", run.text}};
  if (run.layer) object["layer"] = *run.layer;
  object["tokens"] = sums.tokens;
  object["perplexity"] = sums.perplexity();
  object["perplexity_to_dense"] = sums.perplexity_to(dense);
  object["kl_divergence"] = sums.per_token(sums.divergence);
  object["top1_agreement"] = sums.per_token(static_cast<double>(sums.agreed));
  object["ffn_bytes_per_token"] = sums.per_step(sums.ffn_bytes);
  object["ffn_bytes_to_dense"] = ratio(sums.per_step(sums.ffn_bytes), dense.per_step(dense.ffn_bytes));
  object["weight_bytes_per_token"] = sums.per_step(sums.weight_bytes);
  object["kv_bytes_read_per_token"] = sums.per_step(sums.kv_bytes);
  object["decode_tokens_per_second"] = sums.steps_per_second();
  if (!has_answers) return object;
  object["answers"] = sums.items;
  object["exact_answers"] = sums.exact;
  object["image_tokens"] = sums.image_tokens;
  object["kept_image_tokens"] = sums.kept_image_tokens;
  return object;
}

}  // namespace

std::vector<measured_run> summed(const std::vector<std::vector<tally>>& items,
                                 const std::vector<configuration>& configurations) {
  std::vector<measured_run> runs{{"dense", "", {}, {}}};
  for (const configuration& one : configurations) runs.push_back({one.name, one.text, one.layer, {}});
  for (const std::vector<tally>& item : items)
    for (std::size_t i = 0; i < runs.size(); ++i) runs[i].sums += item[i];
  return runs;
}

void print_table(const std::vector<measured_run>& runs, bool has_answers, std::ostream& out) {
  std::vector<table_row> rows{head_row(has_answers)};
  for (const measured_run& run : runs) rows.push_back(figures_row(run, runs.front().sums, has_answers));
  std::vector<std::size_t> widths(rows.front().size());
  for (const table_row& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const table_row& row : rows) {
    out << std::left << std::setw(static_cast<int>(widths[0])) << row[0] << std::right;
    for (std::size_t i = 1; i < row.size(); ++i)
      out << "  " << std::setw(static_cast<int>(widths[i])) << row[i];
    out << '\n';
  }
}

std::string report_json(const io::json& identity, const std::vector<measured_run>& runs, bool has_answers) {
  nlohmann::ordered_json object{{"measurement", identity}, {"runs", nlohmann::ordered_json::array()}};
  for (const measured_run& run : runs)
    object["runs"].push_back(figures_json(run, runs.front().sums, has_answers));
  return io::json_text(object, 1) + "\n";
}

}  // namespace corematching::driver

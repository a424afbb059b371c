// SPDX-License-Identifier: Apache-2.0
#include "llava/report.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "llava/figures.hpp"

namespace corematching::driver {
namespace {

using json = nlohmann::ordered_json;

json work_json(const work_counters& work) {
  return {{"flops", work.flops}, {"weight_bytes", work.weight_bytes}, {"kv_bytes_read", work.kv_bytes}};
}

json bend_json(const select::score_bend& bend) {
  return {{"rank", bend.rank}, {"score", bend.score}, {"distance", bend.distance}};
}

/// The shape of the sorted scores of each group, from which the elbow is read.
json groups_json(const token_match& match) {
  json list = json::array();
  for (const token_group& group : match.groups) {
    json shown{{"image_tokens", group.image_tokens}, {"kept", group.kept}};
    if (group.profile) {
      const select::score_profile& profile = *group.profile;
      shown["scores"] = {{"first", profile.first},
                         {"last", profile.last},
                         {"elbow", profile.elbow ? json(*profile.elbow) : json(nullptr)},
                         {"above", bend_json(profile.above)},
                         {"below", bend_json(profile.below)}};
    }
    list.push_back(std::move(shown));
  }
  return list;
}

json matches_json(const run_report& report) {
  json list = json::array();
  for (const token_match& match : report.matches)
    list.push_back({{"layer", match.layer},
                    {"image_tokens", match.image_tokens},
                    {"kept_image_tokens", match.kept_image_positions.size()},
                    {"kept_image_positions", match.kept_image_positions},
                    {"groups", groups_json(match)}});
  return list;
}

json thinned_json(const run_report& report) {
  if (!report.thinned) return nullptr;
  return {{"criterion", report.thinned->criterion},
          {"image_tokens", report.thinned->image_tokens},
          {"kept_image_tokens", report.thinned->kept_image_positions.size()},
          {"kept_image_positions", report.thinned->kept_image_positions}};
}

json policy_json(const run_report& report) {
  if (report.policy.empty()) return nullptr;
  json policy{{"name", report.policy}};
  if (!report.statistic.empty()) policy["statistic"] = report.statistic;
  policy["beta"] = report.betas;
  return policy;
}

void row(std::ostream& out, const char* name, const std::string& value, const std::string& remark = "") {
  out << "  " << std::left << std::setw(26) << name << std::setw(16) << value << remark << '\n';
}

std::string text_of(const linked::description& computed_by) {
  std::string text = computed_by.device;
  if (!computed_by.instruction_set.empty()) text += " with " + computed_by.instruction_set;
  if (computed_by.threads > 0) text += ", " + std::to_string(computed_by.threads) + " threads";
  return text;
}

void work_rows(std::ostream& out, const char* name, const work_counters& work, const work_counters& dense) {
  const auto against = [](std::uint64_t value, std::uint64_t whole) {
    return percent(ratio(static_cast<double>(value), static_cast<double>(whole))) + " of dense";
  };
  out << name << '\n';
  row(out, "operations", flops(work.flops), against(work.flops, dense.flops));
  row(out, "weights read", bytes(work.weight_bytes), against(work.weight_bytes, dense.weight_bytes));
  row(out, "KV cache read", bytes(work.kv_bytes), against(work.kv_bytes, dense.kv_bytes));
}

/// "gate, beta 0.3", or the least and the largest beta where layers differ.
std::string policy_text(const run_report& report) {
  std::ostringstream text;
  text << report.policy << (report.statistic.empty() ? "" : " by ") << report.statistic << ", beta ";
  const auto [least, most] = std::ranges::minmax(report.betas);
  text << least;
  if (least < most) text << " to " << most;
  return text.str();
}

void kept_rows(std::ostream& out, const run_report& report) {
  row(out, "prompt tokens", std::to_string(report.prompt_tokens),
      std::to_string(report.image_tokens) + " of the image");
  if (report.thinned)
    row(out, "kept before the decoder", std::to_string(report.thinned->kept_image_positions.size()),
        "of " + std::to_string(report.thinned->image_tokens) + " image tokens");
  for (const token_match& match : report.matches)
    row(out, ("kept after layer " + std::to_string(match.layer)).c_str(),
        std::to_string(match.kept_image_positions.size()),
        "of " + std::to_string(match.image_tokens) + " image tokens");
  index sum = 0;
  for (const index count : report.neurons) sum += count;
  row(out, "neurons in decode", std::to_string(sum),
      percent(ratio(static_cast<double>(sum), static_cast<double>(report.layers * report.all_neurons))) +
          " of " + std::to_string(report.layers * report.all_neurons) + " in " +
          std::to_string(report.layers) + " layers");
  if (!report.policy.empty()) row(out, "  chosen by", policy_text(report));
  for (const index layer : report.silent_layers)
    row(out, ("core neurons of layer " + std::to_string(layer)).c_str(), "none",
        "nothing is left out there and no token dropped");
}

// VmHWM of /proc/self/status, where there is such a file: "VmHWM:\t  1234 kB", in units of 1024.
std::optional<std::uint64_t> resident_peak() {
  constexpr std::string_view key = "VmHWM:";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(key)) continue;
    const auto digits = std::min(line.find_first_not_of(" \t", key.size()), line.size());
    std::uint64_t kibibytes = 0;
    const auto parsed = std::from_chars(line.data() + digits, line.data() + line.size(), kibibytes);
    if (parsed.ec == std::errc()) return kibibytes * 1024;
  }
  return std::nullopt;
}

}  // namespace

std::uint64_t peak_memory() {
  if (const auto peak = resident_peak()) return *peak;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void print_json(const run_report& r, std::ostream& out) {
  const json object{
      {"answer", r.answer},
      {"generated_ids", r.generated_ids},
      {"finished", r.finished},
      {"prompt_tokens", r.prompt_tokens},
      {"image_tokens", r.image_tokens},
      {"image_position", r.image_position},
      {"before_decoder", thinned_json(r)},
      {"matches", matches_json(r)},
      {"neuron_policy", policy_json(r)},
      {"core_neurons", r.neurons},
      {"neurons_per_layer", r.all_neurons},
      {"layers_without_core_neurons", r.silent_layers},
      {"seconds",
       {{"load", r.load_seconds},
        {"vision", r.vision_seconds},
        {"prefill", r.prefill_seconds},
        {"selection", r.selection_seconds},
        {"decode", r.decode_seconds}}},
      {"prefill_tokens_per_second", ratio(static_cast<double>(r.prompt_tokens), r.prefill_seconds)},
      {"decode_tokens_per_second", r.decode_tokens_per_second()},
      {"prefill", work_json(r.prefill)},
      {"dense_prefill", work_json(r.dense_prefill)},
      {"decode", work_json(r.decode)},
      {"dense_decode", work_json(r.dense_decode)},
      {"ffn_bytes_per_token", r.per_step(r.ffn_bytes)},
      {"ffn_bytes_to_dense", ratio(static_cast<double>(r.ffn_bytes), static_cast<double>(r.dense_ffn_bytes))},
      {"kv_cache_bytes", r.kv_bytes},
      {"dense_kv_cache_bytes", r.dense_kv_bytes},
      {"peak_memory_bytes", r.peak_memory_bytes},
      {"weights", r.weights},
      {"weight_bytes_held", r.held_weight_bytes},
      {"weight_bytes_streamed_per_token", r.per_step(r.streamed_bytes)},
      {"device", r.computed_by.device},
      {"instruction_set", r.computed_by.instruction_set},
      {"threads", r.computed_by.threads}};
  // A generated answer may end inside a character; the rest of the object is worth more than refusing it.
  out << object.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}

void print_statistics(const run_report& r, std::ostream& out) {
  out << "tokens and neurons\n";
  kept_rows(out, r);
  out << "time\n";
  row(out, "load", amount(r.load_seconds, 1, "s", 3), r.weights + " weights, " + text_of(r.computed_by));
  row(out, "vision", amount(r.vision_seconds, 1, "s", 3));
  row(out, "prefill", amount(r.prefill_seconds, 1, "s", 3),
      amount(ratio(static_cast<double>(r.prompt_tokens), r.prefill_seconds), 1, "tokens/s", 1));
  row(out, "  of which selection", amount(r.selection_seconds, 1e-3, "ms"),
      percent(ratio(r.selection_seconds, r.prefill_seconds)));
  row(out, "decode", amount(r.decode_seconds, 1, "s", 3),
      amount(r.decode_tokens_per_second(), 1, "tokens/s", 1));
  work_rows(out, "work of prefill", r.prefill, r.dense_prefill);
  if (r.decode_steps > 0)
    work_rows(out, ("work of decode, " + std::to_string(r.decode_steps) + " steps").c_str(), r.decode,
              r.dense_decode);
  if (r.decode_steps > 0)
    row(out, "feed-forward weights read", bytes(r.per_step(r.ffn_bytes)),
        "a token, " +
            percent(ratio(static_cast<double>(r.ffn_bytes), static_cast<double>(r.dense_ffn_bytes))) +
            " of dense");
  out << "memory\n";
  row(out, "KV cache", bytes(r.kv_bytes),
      percent(ratio(static_cast<double>(r.kv_bytes), static_cast<double>(r.dense_kv_bytes))) + " of dense");
  row(out, "language model", bytes(r.held_weight_bytes),
      "most at once; " + bytes(r.per_step(r.streamed_bytes)) + " read from the file for each token");
  if (r.is_streamed && r.chooses_for_each_token)
    row(out, "  of which neurons", "all", "each token chooses its own, so layers are read whole");
  row(out, "peak", bytes(r.peak_memory_bytes));
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include "llava/calibrate/options.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "corematching/core/error.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/converted_option.hpp"
#include "llava/file_option.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/presets.hpp"

namespace corematching::driver {
namespace {

/// Calibrating anew replaces a calibration; anything else that has this name may be part of a model, or the
/// text.
void require_calibration_or_nothing(const std::filesystem::path& output, const char* option) {
  std::error_code ignored;
  require(!std::filesystem::exists(output, ignored) || is_calibration(output), option, ": ", output.string(),
          ": exists and is no calibration, so it is not overwritten");
}

// The first scored token is foretold by the prompt, of which nothing is left out: there has to be another.
constexpr index least_chunk = 3;

void check_numbers(const calibrate_options& o) {
  require(!std::isnan(o.tolerance), "--tolerance: is not a number");
  const index scored = o.chunk - o.chunk / 2;
  for (const auto& [option, tokens] :
       {std::pair("--layer-tokens", o.layer_tokens), std::pair("--tokens", o.tokens)})
    require(tokens >= scored, option, ": one chunk scores ", scored, ", more than ", tokens);
}

}  // namespace

calibrate_options parse_calibrate_options(int argc, const char* const* argv) {
  calibrate_options o;
  std::string policy;
  CLI::App app(
      "Finds how few of its neurons each layer of a model can do with, and writes it beside the checkpoint, "
      "where "
      "llava finds it.",
      "llava calibrate");
  add_model(app, o.base);
  add_file(app, "--text", o.text,
           "text file of the kind that the model is for; other texts should judge the result")
      ->required()
      ->type_name("FILE");
  app.add_option(
         "--neurons", policy,
         "policy that is calibrated, gate or predicted (default: predicted where the weights have planes)")
      ->check(CLI::IsMember({"gate", "predicted"}));
  app.add_option("--tolerance", o.tolerance, "how much perplexity may grow, as a share of the dense one's")
      ->capture_default_str()
      ->check(CLI::Range(1e-6, 10.0));
  const CLI::Range some(index{1}, index{1} << 30);
  app.add_option("--chunk", o.chunk,
                 "tokens of the text that are one sequence, the second half of which is scored")
      ->capture_default_str()
      ->check(CLI::Range(least_chunk, index{1} << 30));
  app.add_option("--layer-tokens", o.layer_tokens, "score so many tokens with each layer alone")
      ->capture_default_str()
      ->check(some);
  app.add_option("--tokens", o.tokens, "score so many tokens with all layers together")
      ->capture_default_str()
      ->check(some);
  add_file(app, "--output", o.output,
           "file to write (default: where llava looks for it, in the model's directory)")
      ->type_name("FILE.json");
  add_weights(app, o.base);
  add_computing(app, o.base);
  try {
    app.parse(argc, argv);
    refuse_empty_values(app);
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  if (policy.empty()) policy = policy_for(o.base) == neuron_policy::predicted ? "predicted" : "gate";
  o.sparse = parse_sparsity("--sparsity neurons --neurons " + policy, o.base);
  const char* const named_by = o.output.empty() ? "--model" : "--output";
  if (o.output.empty()) o.output = calibration_path(o.sparse);
  check_numbers(o);
  check_writable(o.output, named_by);
  require_calibration_or_nothing(o.output, named_by);
  return o;
}

}  // namespace corematching::driver

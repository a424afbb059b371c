// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/command.hpp"

#include <cstddef>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/output_file.hpp"
#include "llava/measure/identity.hpp"
#include "llava/measure/items.hpp"
#include "llava/measure/options.hpp"
#include "llava/measure/report.hpp"
#include "llava/measure/state_file.hpp"
#include "llava/option_checks.hpp"
#include "llava/request.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

void check_configurations(const measure_options& o, const llama_config& model) {
  for (const configuration& one : o.configurations) {
    try {
      check_sparsity(matching_of(one.how), model.layers, model.intermediate_size);
      check_beta(one.how, model.layers);
    } catch (const error& problem) {
      fail("--config \"", one.name, "\": ", problem.what());
    }
  }
}

measurement_plan read_plan(const measure_options& o, console& terminal) {
  request model = read_model_files(o.base);
  check_configurations(o, model.config.text());
  require(model.words != nullptr, o.base.model.string(),
          ": has neither tokenizer.json nor tokenizer.model, without which there are no texts");
  measurement_plan plan{o.base, model.config, o.configurations, {}, o.timed_steps};
  if (o.by_layer) plan.configurations = with_single_layers(o.configurations, model.config.text().layers);
  if (!o.text.empty()) {
    plan.items = read_text_chunks(o, model);
    return plan;
  }
  model.format =
      &chosen_format(o.base, model.config, [&](const std::string& text) { terminal.notice(text); });
  plan.items = read_questions(
      o, model, [&](double done, double total) { terminal.progress("reading the questions", done, total); });
  terminal.clear();
  return plan;
}

/// What tells this measurement from others.
io::json identity_of(const measure_options& o, const measurement_plan& plan, const linked::description& by) {
  io::json compared = io::json::array();
  for (const configuration& one : o.configurations) {
    compared.push_back({one.name, one.text});
    // A calibration may be another one in the next start.
    if (one.how.neurons.calibrated) compared.back().push_back(one.how.neurons.beta_of_layer);
  }
  io::json identity = identity_of_runs(o.base, plan.items, by);
  identity.update({{"measured", o.text.empty() ? "questions" : "text"},
                   {"configurations", compared},
                   {"by_layer", o.by_layer}});
  if (!o.text.empty()) identity["chunk"] = {o.chunk, o.prompt_tokens.value_or(o.chunk / 2)};
  if (o.timed_steps) identity["timed_steps"] = *o.timed_steps;
  return identity;
}

void write_text(io::output_file& file, const std::string& text) {
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace

void run_measure(int argc, const char* const* argv, console& terminal, const measurer& measure) {
  const measure_options o = parse_measure_options(argc, argv);
  const measurement_plan plan = read_plan(o, terminal);
  std::optional<io::output_file> json;
  if (!o.json.empty() && !o.writes_json_out()) json.emplace(o.json);
  io::json identity;
  state_file state;
  measure(plan, terminal,
          {.begin =
               [&](const linked::description& by) {
                 identity = identity_of(o, plan, by);
                 if (!o.state.empty())
                   state = state_file(o.state, identity, plan.items.size(), 1 + plan.configurations.size());
                 return std::ssize(state.items());
               },
           .on_item = [&](const std::vector<tally>& runs) { state.add(runs); }});
  const std::vector<measured_run> runs = summed(state.items(), plan.configurations);
  if (o.writes_json_out()) {
    std::cout << report_json(identity, runs, o.text.empty());
  } else {
    print_table(runs, o.text.empty(), std::cout);
  }
  std::cout.flush();
  if (json) write_text(*json, report_json(identity, runs, o.text.empty()));
}

}  // namespace corematching::driver

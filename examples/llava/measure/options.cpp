// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/file_option.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

struct measure_command_line {
  measure_options o;
  std::vector<std::string> configurations;
};

void add_measured(CLI::App& app, measure_command_line& line) {
  measure_options& o = line.o;
  auto* text = add_file(app, "--text", o.text, "text file: every token is foretold from those before it")
                   ->type_name("FILE");
  auto* questions =
      add_file(app, "--questions", o.questions,
               "questions and their answers instead, a JSON object a line: \"question\", \"answer\", and "
               "\"image\", a file beside it, where there is a picture")
          ->type_name("FILE.jsonl");
  text->excludes(questions);
  app.add_option(
         "--config", line.configurations,
         "what is compared with the dense run: a name and sparsity options as llava takes them; may be "
         "repeated")
      ->type_name("\"NAME: OPTIONS\"")
      ->allow_extra_args(false);
  app.add_flag("--by-layer", o.by_layer, "measure every configuration in each layer alone, too");
  const CLI::Range some(index{1}, index{1} << 30);
  app.add_option("--chunk", o.chunk, "tokens of the text that are one sequence")
      ->capture_default_str()
      ->check(CLI::Range(index{2}, index{1} << 30));
  app.add_option("--prompt-tokens", o.prompt_tokens,
                 "of these so many are the prompt, and the others are scored (default: half)")
      ->type_name("N")
      ->check(some);
  app.add_option("--tokens", o.most_tokens,
                 "score at most so many tokens, of chunks spread evenly over the text (default: all)")
      ->type_name("N")
      ->check(some);
  app.add_option(
         "--timed-steps", o.timed_steps,
         "decode but so many tokens of each chunk or answer one by one, on which bytes and tokens/s are "
         "counted, and the others 64 at a time, which is faster (default: all one by one)")
      ->type_name("N")
      ->check(some);
  add_file(app, "--state", o.state, "keep what has been measured here, and go on from it in a second start")
      ->type_name("FILE");
  add_file(app, "--json", o.json,
           "write the figures here, too (-: to standard output, in place of the table)")
      ->type_name("OUT.json");
}

void check_measured(const measure_options& o, const CLI::App& app) {
  if (o.text.empty() && o.questions.empty())
    throw CLI::ValidationError("nothing is measured: give --text or --questions");
  if (o.by_layer && o.configurations.empty())
    throw CLI::ValidationError("--by-layer", "there is no --config to measure by layer");
  refuse_unread({{!o.text.empty(), {"--system", "--chat-template", "--image-fit"}, "with --text"},
                 {!o.questions.empty(), {"--chunk", "--prompt-tokens", "--tokens"}, "with --questions"},
                 {o.base.device.what == device_choice::kind::cuda, {"--threads"}, "with --device cuda"}},
                [&](const std::string& option) { return app.count(option) > 0; });
  require(!o.prompt_tokens || *o.prompt_tokens < o.chunk, "--prompt-tokens: of chunks of ", o.chunk,
          " tokens that leaves none to score");
  if (!o.writes_json_out()) check_output(o.base, o.json, "--json");
  refuse_standard_output(o.state, "--state");
  for (const std::filesystem::path& input : {o.text, o.questions, o.state})
    require(input.empty() || o.json.empty() || weakly_canonical(o.json) != weakly_canonical(input),
            "--json: ", o.json.string(), ": another option names the same file");
}

std::string without_blanks(const std::string& text) {
  const auto first = text.find_first_not_of(' ');
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(' ') - first + 1);
}

/// "NAME: OPTIONS"
configuration parse_configuration(const std::string& given, const options& base) {
  const auto colon = given.find(':');
  const std::string name = without_blanks(given.substr(0, colon));
  require(colon != given.npos && !name.empty() && name.front() != '-', "--config: ", io::in_quotes(given),
          " is not of the form NAME: OPTIONS");
  const std::string text = without_blanks(given.substr(colon + 1));
  const std::string where = "--config \"" + name + "\": ";
  try {
    configuration made{name, text, parse_sparsity(text, base), {}};
    require(is_sparse(made.how) || made.how.thin,
            "--sparsity: nothing is left out, and the dense run is measured anyway");
    return made;
  } catch (const error& problem) {
    fail(where, problem.what());
  }
}

void parse_configurations(measure_command_line& line) {
  options base = line.o.base;
  base.messages = line.o.questions;  // in which there may be pictures, so options about their tokens are read
  for (const std::string& given : line.configurations) {
    configuration made = parse_configuration(given, base);
    made.how.messages.clear();
    const auto same = [&](const configuration& other) { return other.name == made.name; };
    require(made.name != "dense" && std::ranges::none_of(line.o.configurations, same),
            "--config: the name \"", made.name, "\" is taken");
    require(!line.o.by_layer || made.how.sparsity.sparse_neurons, "--config \"", made.name,
            "\": leaves no neurons out, so there is nothing to measure by layer");
    line.o.configurations.push_back(std::move(made));
  }
}

}  // namespace

measure_options parse_measure_options(int argc, const char* const* argv) {
  measure_command_line line;
  CLI::App app(
      "Measures what configurations do to a model's predictions, beside the dense run: perplexity, "
      "divergence, "
      "agreement, bytes read and speed.",
      "llava measure");
  app.footer("OPTIONS of --config are the group Sparsity of llava --help.");
  add_model(app, line.o.base);
  add_measured(app, line);
  add_prompt_format(app, line.o.base);
  add_weights(app, line.o.base);
  add_computing(app, line.o.base);
  try {
    app.parse(argc, argv);
    refuse_empty_values(app);
    parse_configurations(line);
    check_measured(line.o, app);
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  return line.o;
}

std::vector<configuration> with_single_layers(const std::vector<configuration>& from, index layers) {
  std::vector<configuration> all;
  for (const configuration& whole : from) {
    all.push_back(whole);
    const core_matching_config& sparsity = whole.how.sparsity;
    for (index layer = sparsity.neuron_layers_begin; layer < sparsity.neuron_end(layers); ++layer) {
      configuration& one = all.emplace_back(whole);
      one.layer = layer;
      one.how.sparsity.sparse_tokens = false;
      one.how.thin.reset();
      one.how.sparsity.neuron_layers_begin = layer;
      one.how.sparsity.neuron_layers_end = layer + 1;
      one.how.sparsity.beta = shares_of(whole.how).of(layer, layers);
      one.how.neurons.beta_of_layer.clear();
    }
  }
  return all;
}

}  // namespace corematching::driver

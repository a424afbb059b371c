// SPDX-License-Identifier: Apache-2.0
#include "llava_bench_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "random_model.hpp"

namespace corematching::bench {
namespace {

std::vector<std::string> type_names() {
  std::vector<std::string> names;
  for (const dtype type : weight_types) names.emplace_back(name_of(type));
  for (const dtype type : split_types) names.emplace_back(name_of(type));
  return names;
}

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : shapes()) names.push_back(name);
  return names;
}

void add_model(CLI::App& app, options& o) {
  auto* shape = app.add_option("--shape", o.shape, "shape of a model, filled with random weights")
                    ->check(CLI::IsMember(shape_names()))
                    ->capture_default_str();
  auto* model = app.add_option("--model", o.model,
                               "checkpoint or GGUF file to load instead; only its language model runs")
                    ->type_name("DIR|FILE")
                    ->excludes(shape);
  app.add_option("--layers", o.layers, "so many decoder layers instead of the shape's")
      ->check(CLI::Range(1, 1024))
      ->excludes(model);
  app.add_option_function<std::string>(
         "--weights", [&o](const std::string& name) { o.weights = *dtype_named(name); },
         "storage type of random weights (default: f16), or of a model's (default: as stored)")
      ->check(CLI::IsMember(type_names()));
  app.add_option(
         "--memory-limit", o.memory_limit,
         "bytes of a checkpoint's weights in memory at a time, as 2300M; a packed file is made of it, with "
         "weights of --weights (default then: f16)")
      ->transform(CLI::AsSizeValue(true))
      ->needs(model);
  auto* cuda =
      app.add_option("--cuda", o.cuda_device, "measure on the CUDA device of this number, not on the CPU")
          ->check(CLI::Range(0, 1023))
          ->type_name("N");
  app.add_flag("--overlap", o.overlap, "there, let kernels be started before those before them are done")
      ->needs(cuda);
  app.add_flag("!--no-graph", o.graph, "there, start the kernels of a decoding step one by one")->needs(cuda);
  app.add_option("--threads", o.threads, "threads of the CPU to work on (0: as many as may run at once)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

void add_workload(CLI::App& app, options& o) {
  constexpr index most = 1 << 20;
  app.add_option("--text-tokens", o.load.text_tokens, "text tokens of the prompt, around the image")
      ->check(CLI::Range(index{2}, most))
      ->capture_default_str();
  app.add_option("--image-tokens", o.load.image_tokens, "image tokens of the prompt")
      ->check(CLI::Range(index{0}, most))
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--kv-cache", [&o](const std::string& name) { o.load.cache_type = *dtype_named(name); },
         "storage type of keys and values (default: f16)")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option(
         "--sequences", o.sequences,
         "measure the steps of so many sequences that decode together, as 1,2,4,8: dense and, with --beta, "
         "sparse, in turns")
      ->check(CLI::Range(1, 1024))
      ->delimiter(',');
  app.add_option("--new-tokens", o.load.new_tokens, "tokens to decode behind the prompt")
      ->check(CLI::Range(index{1}, most))
      ->capture_default_str();
}

void add_sparsity(CLI::App& app, options& o) {
  auto* keep = app.add_option("--keep", o.keep, "image tokens that stay (default: all)")
                   ->check(CLI::Range(1, 1 << 20));
  app.add_option("--match-layer", o.match_layer,
                 "layer after which the others are dropped (default: 10 of 32)")
      ->check(CLI::Range(0, 1023))
      ->needs(keep);
  app.add_option("--beta", o.beta, "share of the neurons that decode")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  static const std::map<std::string, options::neuron_policy> policies{
      {"sentence", options::neuron_policy::sentence},
      {"gate", options::neuron_policy::gate},
      {"predicted", options::neuron_policy::predicted}};
  app.add_option_function<std::string>(
         "--policy", [&o](const std::string& name) { o.policy = policies.at(name); },
         "which neurons: a set for the whole answer, or each token's own, by "
         "its gates or by what the upper "
         "planes "
         "of weights in two planes, as q8_0_planes, foretell (default: "
         "sentence)")
      ->check(CLI::IsMember({"sentence", "gate", "predicted"}));
}

void add_measurement(CLI::App& app, options& o) {
  app.add_option("--repeat", o.repeat, "measured passes")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_flag("--paired", o.paired, "measure dense and sparse in turns, and their ratio pair by pair");
  app.add_flag("--probe", o.probe, "measure only how fast memory can be read");
  app.add_flag("--json", o.json, "print one JSON object");
}

}  // namespace

core_matching_config options::sparsity() const {
  core_matching_config config;
  config.sparse_tokens = keep.has_value();
  config.sparse_neurons = beta < 1 && policy == neuron_policy::sentence;
  config.beta = beta;
  if (match_layer) config.match_layers = {*match_layer};
  if (keep) {
    config.keep.rule = select::keep_rule::top_k;
    config.keep.count = *keep;
  }
  return config;
}

options parse_options(int argc, const char* const* argv) {
  options result;
  CLI::App app(
      "Measures prefill and decode of a LLaVA prompt, dense or with "
      "CoreMatching.",
      "llava_bench");
  add_model(app, result);
  add_workload(app, result);
  add_sparsity(app, result);
  add_measurement(app, result);
  try {
    app.parse(argc, argv);
    if (!result.sequences.empty() && (result.keep || result.paired))
      throw CLI::ValidationError(
          "--sequences measures decoding alone, and always in turns: without --keep and --paired");
    if (result.paired && !result.is_sparse())
      throw CLI::ValidationError("--paired compares dense with sparse: give --keep or --beta below 1");
    if (result.policy == options::neuron_policy::predicted && !has_planes(result.random_weights()))
      throw CLI::ValidationError(
          "--policy predicted needs weights in two "
          "planes, as --weights q8_0_planes");
    if (result.model.empty() && std::ranges::count(split_types, result.random_weights()) > 0)
      throw CLI::ValidationError("--weights: " + std::string(name_of(*result.weights)) +
                                 " are split from a GGUF file's: give --model");
    if (result.memory_limit && std::filesystem::is_regular_file(result.model))
      throw CLI::ValidationError("--memory-limit needs a checkpoint's directory as --model");
    if (result.cuda_device && is_quantised(result.random_weights()))
      throw CLI::ValidationError("--cuda: weights on a CUDA device are f32, f16, f16_planes or bf16");
    if (result.keep && *result.keep > result.load.image_tokens)
      throw CLI::ValidationError("--keep asks for more tokens than --image-tokens gives");
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  return result;
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
#include "llava/options.hpp"

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/core/version.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/converted_option.hpp"
#include "llava/file_option.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/option_values.hpp"
#include "llava/presets.hpp"

namespace corematching::driver {
namespace {

std::string version() {
  return std::to_string(COREMATCHING_VERSION_MAJOR) + "." + std::to_string(COREMATCHING_VERSION_MINOR) + "." +
         std::to_string(COREMATCHING_VERSION_PATCH);
}

}  // namespace

void add_sparsity(CLI::App& app, options& o) {
  using namespace corematching;
  auto& config = o.sparsity;
  const std::string group = "Sparsity";
  add_choice(
      app, "--preset", o.preset,
      {{"default", preset_choice::safe}, {"paper", preset_choice::paper}, {"dense", preset_choice::dense}},
      "what is left out at once: what keeps the answers (two fifths of the image tokens, by rarity, but none "
      "in a "
      "--chat; with --weights q8_0_planes, or a calibration by llava calibrate, neurons that a token can do "
      "without), what the paper leaves out, or nothing")
      ->group(group);
  add_converted(
      app, "--sparsity",
      [&config](const std::string& text) {
        if (text != "none" && text != "neurons" && text != "tokens" && text != "both")
          fail("--sparsity: \"", text, "\" is none of none, neurons, tokens, both");
        config.sparse_neurons = text == "neurons" || text == "both";
        config.sparse_tokens = text == "tokens" || text == "both";
      },
      "none|neurons|tokens|both",
      "what is left out; the other options of this group, except --preset, say how, and are the paper's "
      "where they "
      "are not given (default: what --preset says)")
      ->group(group);
  app.add_option("--rho", config.rho, "share of a token's activated neurons that are its core neurons")
      ->capture_default_str()
      ->group(group);
  add_converted(
      app, "--beta", [&o](const std::string& t) { set_beta(t, o); }, "B[,B...]|calibrated",
      "share of a layer's neurons that answer: of every layer, or one for each, or those of the model's "
      "calibration "
      "(default: 0.4)")
      ->group(group);
  add_choice(app, "--neurons", o.neurons.policy,
             {{"sentence", neuron_policy::sentence},
              {"gate", neuron_policy::gate},
              {"gate:plain", neuron_policy::plain_gate},
              {"predicted", neuron_policy::predicted}},
             "which neurons answer: one set for the whole answer, or for each token those that its gates say "
             "(weighted by the prompt, or plain) or that the weights' upper planes foretell (--weights "
             "q8_0_planes, q4_0_planes, of GGUF files q4_k_planes or, also on a CUDA device, f16_planes)")
      ->group(group);
  add_choice(app, "--statistic", o.neurons.statistic,
             {{"frequency", neuron_statistic::frequency}, {"magnitude", neuron_statistic::magnitude}},
             "by what of the prompt --neurons sentence chooses: how often a neuron is a core neuron, or its "
             "mean magnitude")
      ->group(group);
  add_converted(
      app, "--match-layers", [&config](const std::string& t) { config.match_layers = layer_list(t); }, "LIST",
      "layers after which tokens are dropped, from 0, as 2,10 or 2-5 (default: 10 of 32)")
      ->group(group);
  add_converted(
      app, "--keep", [&config](const std::string& t) { set_keep_rule(t, "keep", config.keep); },
      "max_distance|strict|top_k:K|ratio:R", "how many image tokens stay (default: max_distance)")
      ->group(group);
  app.add_option("--min-tokens", config.keep.min_tokens, "keep at least so many image tokens")
      ->capture_default_str()
      ->group(group);
  add_converted(
      app, "--max-tokens",
      [&config](const std::string& t) { config.keep.max_tokens = number<index>(t, "max-tokens"); }, "N",
      "keep at most so many image tokens")
      ->group(group);
  add_choice(app, "--keep-among", config.among, {{"each", kept_among::each}, {"all", kept_among::all}},
             "whether so many stay of each picture, or of all together")
      ->group(group);
  add_choice(app, "--criterion", config.criterion,
             {{"overlap", token_criterion::overlap},
              {"rarity", token_criterion::rarity},
              {"contrast", token_criterion::contrast},
              {"attention", token_criterion::attention},
              {"projection", token_criterion::projection},
              {"random", token_criterion::random}},
             "score by which image tokens stay: shared neurons (the paper); these weighted by how few image "
             "tokens have them, or without the image's own core neurons; attention; chance")
      ->group(group);
  add_choice<std::optional<reference_set>>(app, "--reference", config.reference,
                                           {{"sentence", reference_set::sentence},
                                            {"anchor", reference_set::anchor},
                                            {"question", reference_set::question},
                                            {"text", reference_set::text}},
                                           "neurons that image tokens are matched with: the sentence's core "
                                           "neurons (default of overlap), those of "
                                           "one text token (of contrast), of the text behind the pictures "
                                           "(of rarity), or core neurons of text alone")
      ->group(group);
  app.add_option("--anchor", config.anchor, "position of that text token, from the end if negative")
      ->capture_default_str()
      ->group(group);
  add_choice(app, "--count-over", config.count_over,
             {{"all", counted_tokens::all}, {"text", counted_tokens::text}, {"image", counted_tokens::image}},
             "tokens whose activations say which neurons answer")
      ->group(group);
  add_choice(app, "--core-count", config.count,
             {{"per_token", core_count::per_token}, {"mean_count", core_count::mean_count}},
             "how many core neurons a token has: rho of its own activated neurons, or of the mean")
      ->group(group);
  add_converted(
      app, "--neuron-layers", [&config](const std::string& t) { set_neuron_layers(t, config); }, "BEGIN:END",
      "layers that leave neurons out (default: all)")
      ->group(group);
  add_choice(app, "--pruning", config.pruning,
             {{"everywhere", pruning_mode::everywhere},
              {"later_layers", pruning_mode::later_layers},
              {"zero_in_place", pruning_mode::zero_in_place}},
             "from which caches dropped tokens go")
      ->group(group);
  add_choice(app, "--positions", config.positions,
             {{"original", position_policy::original}, {"contiguous", position_policy::contiguous}},
             "positions of the tokens that stay")
      ->group(group);
  add_seed(app, "--selection-seed", config.seed, "seed of the criterion random, and of --thin random")
      ->group(group);
}

void add_thinning(CLI::App& app, options& o) {
  const std::string group = "Sparsity";
  const auto thinning = [&o]() -> thinning_config& { return o.thin ? *o.thin : o.thin.emplace(); };
  add_converted(
      app, "--thin",
      [thinning](const std::string& text) {
        if (text != "duplication" && text != "random")
          fail("--thin: \"", text, "\" is none of duplication, random");
        thinning().criterion =
            text == "random" ? thinning_criterion::random : thinning_criterion::duplication;
      },
      "duplication|random",
      "drop image tokens before the decoder, which every layer is then spared: those that are like others, "
      "or "
      "by chance (default: none)")
      ->group(group);
  add_converted(
      app, "--thin-keep",
      [thinning](const std::string& text) { set_keep_rule(text, "thin-keep", thinning().keep); },
      "top_k:K|ratio:R", "how many tokens of each picture enter the decoder")
      ->group(group);
}

namespace {

void add_input(CLI::App& app, options& o) {
  add_model(app, o);
  add_file(app, "--image", o.image,
           "PNG, JPEG, GIF or WebP picture (-: from standard input); without one it is a text run")
      ->type_name("FILE");
  auto* prompt = app.add_option("--prompt", o.prompt, "the question")->type_name("TEXT");
  auto* raw =
      app.add_option("--raw-prompt", o.raw_prompt,
                     "the whole prompt instead, as the model reads it, with its special tokens and <image>")
          ->type_name("TEXT")
          ->excludes(prompt);
  auto* ids = app.add_option("--prompt-ids", o.prompt_ids,
                             "exact token ids instead; the image token id marks the image")
                  ->type_name("ID,ID,...")
                  ->excludes(prompt)
                  ->excludes(raw);
  add_file(app, "--messages", o.messages,
           "a conversation instead: JSON, the message list of chat completions")
      ->type_name("FILE.json")
      ->excludes(prompt)
      ->excludes(raw)
      ->excludes(ids);
  app.add_flag("--chat", o.chat, "ask one question after the other, from the terminal or standard input")
      ->excludes(raw)
      ->excludes(ids)
      ->excludes("--messages");
  add_prompt_format(app, o);
}

void add_generation(CLI::App& app, options& o) {
  const std::string group = "Generation";
  app.add_option("--max-new-tokens", o.max_new_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(index{0}, index{1} << 30))
      ->group(group);
  app.add_option("--stop", o.stops, "a text that ends the answer, and is no part of it; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  add_sampling(app, o, group);
  add_seed(app, "--seed", o.sampling.seed, "seed of the draw")->group(group);
  add_computing(app, o);
}

void add_output(CLI::App& app, options& o) {
  const std::string group = "Output";
  app.add_flag("--stats", o.stats, "print what was kept and how long it took, on stderr")->group(group);
  app.add_flag("--json", o.json, "print one JSON object instead of the answer")->group(group);
  add_file(app, "--show-tokens", o.show_tokens, "write the picture with dropped patches greyed out")
      ->type_name("OUT.png")
      ->group(group);
  add_file(app, "--dump", o.dump, "write activations, decisions and logits")
      ->type_name("OUT.safetensors")
      ->group(group);
}

}  // namespace

options parse_sparsity(const std::string& text, options base) {
  CLI::App app;
  app.set_help_flag();
  add_sparsity(app, base);
  add_thinning(app, base);
  try {
    app.parse(text);
    refuse_empty_values(app);
  } catch (const CLI::ParseError& problem) {
    fail(problem.what());
  }
  const auto given = [&](const std::string& option) {
    const CLI::Option* known = app.get_option_no_throw(option);
    return known != nullptr && known->count() > 0;
  };
  refuse_unread(base, given);
  check_thinning(base, given);
  if (base.neurons.calibrated) take_calibrated_shares(base);
  if (given("--preset")) apply_preset(base);
  check_neuron_policy(base);
  return base;
}

std::vector<std::string> sparsity_option_names() {
  CLI::App app;
  app.set_help_flag();
  options unused;
  add_sparsity(app, unused);
  add_thinning(app, unused);
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back(option->get_name().substr(2));
  return names;
}

options parse_options(int argc, const char* const* argv) {
  options result;
  CLI::App app("Asks a LLaVA-1.5, LLaMA, Mistral or Qwen checkpoint, with CoreMatching.", "llava");
  app.footer(
      "llava inspect DIR says what a checkpoint holds and whether it runs; llava pack --help, how weights "
      "are "
      "converted once for all; llava serve --help, how many are answered at a time over HTTP, and llava "
      "batch --help, "
      "from a file; llava measure --help, how options are compared on a text or on questions; llava "
      "calibrate --help, "
      "how few neurons each layer of a model can do with.");
  app.set_version_flag("--version", version());
  add_input(app, result);
  add_weights(app, result);
  add_sparsity(app, result);
  add_thinning(app, result);
  add_generation(app, result);
  add_output(app, result);
  try {
    app.parse(argc, argv);
    refuse_empty_values(app);
    if (result.prompt.empty() && result.raw_prompt.empty() && result.prompt_ids.empty() &&
        result.messages.empty() && !result.chat)
      throw CLI::ValidationError(
          "the prompt is empty: give --prompt, --chat, --messages, --raw-prompt or --prompt-ids");
    result.sampling.validate();
    settle_sparsity(result, [&](const std::string& option) { return app.count(option) > 0; });
    check_outputs(result);
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  return result;
}

}  // namespace corematching::driver

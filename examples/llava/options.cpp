// SPDX-License-Identifier: Apache-2.0
#include "llava/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/chat/formats.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/version.hpp"
#include "llava/file_option.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/option_values.hpp"

namespace corematching::driver {
namespace {

std::string version() {
  return std::to_string(COREMATCHING_VERSION_MAJOR) + "." + std::to_string(COREMATCHING_VERSION_MINOR) + "." +
         std::to_string(COREMATCHING_VERSION_PATCH);
}

/// An option whose value is one of the names in `names`.
template <class Value>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Value& value,
                        std::map<std::string, Value> names, const std::string& help) {
  const Value initial = value;
  std::string shown;
  std::string list;
  for (const auto& [text, meaning] : names) {
    list += (list.empty() ? "" : "|") + text;
    if (meaning == initial) shown = text;
  }
  return app
      .add_option_function<std::string>(
          name,
          [&value, names, name, list](const std::string& text) {
            const auto found = names.find(text);
            if (found == names.end()) throw CLI::ValidationError(name, "\"" + text + "\" is none of " + list);
            value = found->second;
          },
          help)
      ->type_name(list)
      ->default_str(shown);
}

/// Runs `convert` when the option is given; its errors become usage errors.
template <class Convert>
CLI::Option* add_converted(CLI::App& app, const std::string& name, Convert convert, const std::string& type,
                           const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [convert](const std::string& text) {
            try {
              convert(text);
            } catch (const error& problem) {
              throw CLI::ValidationError(problem.what());
            }
          },
          help)
      ->type_name(type);
}

// CLI11 would take -1 for 2^64 - 1.
CLI::Option* add_seed(CLI::App& app, const std::string& name, std::uint64_t& seed, const std::string& help) {
  return add_converted(
             app, name,
             [&seed, stem = name.substr(2)](const std::string& text) {
               seed = number<std::uint64_t>(text, stem.c_str());
             },
             "N", help)
      ->default_str(std::to_string(seed));
}

}  // namespace

void add_model(CLI::App& app, options& o) {
  add_file(app, "--model", o.model, "directory of the checkpoint, as Hugging Face lays it out")
      ->required()
      ->type_name("DIR");
}

void add_prompt_format(CLI::App& app, options& o) {
  app.add_option("--system", o.system, "text in front of the prompt")->type_name("TEXT");
  app.add_option("--chat-template", o.chat_template,
                 "the model's chat format: " + chat::format_names() + " (default: what its files say)")
      ->type_name("NAME");
  add_converted(
      app, "--image-fit",
      [&o](const std::string& text) {
        if (text != "crop" && text != "pad") fail("--image-fit: \"", text, "\" is none of crop, pad");
        o.fit = text == "pad" ? image_fit::pad : image_fit::crop;
      },
      "crop|pad",
      "cut the picture to a square, or pad it to one first (default: what the model's files say)");
}

void add_weights(CLI::App& app, options& o) {
  const std::string group = "Weights";
  add_converted(
      app, "--weights", [&o](const std::string& text) { o.weights.type = weights_type(text); },
      weights_types(),
      "type of the language model's matrices: from a packed file, or converted while loading (default: as "
      "stored)")
      ->group(group);
  add_file(app, "--packed", o.weights.packed,
           "packed file to take them from (default: the model's own, if any)")
      ->type_name("FILE")
      ->group(group);
  add_converted(
      app, "--memory-limit",
      [&o](const std::string& text) { o.weights.memory_limit = byte_count(text, "memory-limit"); },
      "N[K|M|G]", "hold at most so many bytes of the language model's weights, of a packed file")
      ->group(group);
}

void add_sparsity(CLI::App& app, options& o) {
  using namespace corematching;
  auto& config = o.sparsity;
  const std::string group = "Sparsity";
  add_converted(
      app, "--sparsity",
      [&config](const std::string& text) {
        if (text != "none" && text != "neurons" && text != "tokens" && text != "both")
          fail("--sparsity: \"", text, "\" is none of none, neurons, tokens, both");
        config.sparse_neurons = text == "neurons" || text == "both";
        config.sparse_tokens = text == "tokens" || text == "both";
      },
      "none|neurons|tokens|both", "what is left out; the paper leaves out both (default: none)")
      ->group(group);
  app.add_option("--rho", config.rho, "share of a token's activated neurons that are its core neurons")
      ->capture_default_str()
      ->group(group);
  add_converted(
      app, "--beta", [&o](const std::string& t) { set_beta(t, o); }, "B[,B...]",
      "share of a layer's neurons that answer: of every layer, or one for each (default: 0.4)")
      ->group(group);
  add_choice(app, "--neurons", o.neurons.policy,
             {{"sentence", neuron_policy::sentence},
              {"gate", neuron_policy::gate},
              {"gate:plain", neuron_policy::plain_gate},
              {"predicted", neuron_policy::predicted}},
             "which neurons answer: one set for the whole answer, or for each token those that its gates say "
             "(weighted by the prompt, or plain) or that the weights' upper planes foretell (--weights "
             "q8_0_planes)")
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
      app, "--keep", [&config](const std::string& t) { set_keep_rule(t, config.keep); },
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
  add_choice(app, "--criterion", config.criterion,
             {{"overlap", token_criterion::overlap},
              {"attention", token_criterion::attention},
              {"projection", token_criterion::projection},
              {"random", token_criterion::random}},
             "score by which image tokens stay")
      ->group(group);
  add_choice(
      app, "--reference", config.reference,
      {{"sentence", reference_set::sentence}, {"anchor", reference_set::anchor}},
      "neurons that image tokens are matched with: the sentence's core neurons, or those of one text token")
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
  add_seed(app, "--selection-seed", config.seed, "seed of the criterion random")->group(group);
}

void add_computing(CLI::App& app, options& o) {
  const std::string group = "Computing";
  add_choice<std::optional<dtype>>(
      app, "--kv-cache", o.cache_type, {{"f32", dtype::f32}, {"f16", dtype::f16}, {"bf16", dtype::bf16}},
      "how keys and values are stored (otherwise f16 beside weights in blocks, f32 beside others)")
      ->group(group);
  add_converted(
      app, "--device", [&o](const std::string& text) { o.device = chosen_device(text); },
      "cpu|eigen|cuda|cuda:N",
      "what computes: the CPU, by its own kernels or by Eigen alone (slow, to compare with), or a CUDA "
      "device "
      "by its number (default: cpu)")
      ->group(group);
  app.add_option("--threads", o.threads, "threads of the CPU to work on (0: as many as may run at once)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
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
  app.add_option("--temperature", o.sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-k", o.sampling.top_k, "draw from the K likeliest tokens (0: all)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-p", o.sampling.top_p, "draw from the likeliest tokens that make up this share")
      ->capture_default_str()
      ->group(group);
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

void refuse_empty_values(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (name == "--prompt" || name == "--raw-prompt" || name == "--system") continue;
    if (std::ranges::count(option->results(), "") > 0) throw CLI::ValidationError(name, "its value is empty");
  }
}

options parse_sparsity(const std::string& text, options base) {
  CLI::App app;
  app.set_help_flag();
  add_sparsity(app, base);
  try {
    app.parse(text);
    refuse_empty_values(app);
  } catch (const CLI::ParseError& problem) {
    fail(problem.what());
  }
  refuse_unread(base, [&](const std::string& option) {
    const CLI::Option* known = app.get_option_no_throw(option);
    return known != nullptr && known->count() > 0;
  });
  check_neuron_policy(base);
  return base;
}

options parse_options(int argc, const char* const* argv) {
  options result;
  CLI::App app("Asks a LLaVA-1.5 or LLaMA checkpoint, with CoreMatching.", "llava");
  app.footer(
      "llava inspect DIR says what a checkpoint holds and whether it runs; llava pack --help, how weights "
      "are converted "
      "once for all; llava measure --help, how options are compared on a text or on questions.");
  app.set_version_flag("--version", version());
  add_input(app, result);
  add_weights(app, result);
  add_sparsity(app, result);
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
    refuse_unread(result, [&](const std::string& option) { return app.count(option) > 0; });
    check_neuron_policy(result);
    check_outputs(result);
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  return result;
}

}  // namespace corematching::driver

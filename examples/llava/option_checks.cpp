// SPDX-License-Identifier: Apache-2.0
#include "llava/option_checks.hpp"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/output_file.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/presets.hpp"
#include "llava/sparse_settings.hpp"
#include "llava/standard_input.hpp"

namespace corematching::driver {
namespace {

namespace fs = std::filesystem;

/// Runs `check`; what it refuses is the fault of `option`.
template <class Check>
void blame(const char* option, Check check) {
  try {
    check();
  } catch (const error& problem) {
    fail(option, ": ", problem.what());
  }
}

fs::path directory_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

/// Whether a file lies in the model's directory or, where the model is a GGUF file, is that file, another of
/// those that it is split into, or one that was made for it, whose names begin with the model's.
bool belongs_to_model(const fs::path& file, const fs::path& model) {
  std::error_code ignored;
  if (fs::equivalent(directory_of(file), model, ignored) || fs::equivalent(file, model, ignored)) return true;
  if (!fs::is_regular_file(model, ignored) ||
      !fs::equivalent(directory_of(file), directory_of(model), ignored))
    return false;
  const std::string name = file.filename().string(), own = model.filename().string();
  const std::string any_part = io::gguf_part_name(own, 0, 1);
  return name.starts_with(own) || (!any_part.empty() && io::gguf_part_name(name, 0, 1) == any_part);
}

}  // namespace

void refuse_standard_output(const std::filesystem::path& output, const char* name) {
  if (output == "-") fail(name, ": is not written to standard output; a file of the name - is ./-");
}

void check_writable(const std::filesystem::path& output, const char* name) {
  refuse_standard_output(output, name);
  std::error_code ignored;
  const fs::path directory = directory_of(output);
  if (!fs::is_directory(directory, ignored))
    fail(name, ": ", output.string(), ": there is no such directory");
  if (::access(directory.c_str(), W_OK) != 0)
    fail(name, ": ", output.string(), ": nothing can be written to its directory: ", io::errno_text(errno));
  blame(name, [&] { io::refuse_special_file(output); });
}

void check_output(const options& o, const std::filesystem::path& output, const char* name) {
  if (output.empty()) return;
  check_writable(output, name);
  std::error_code ignored;
  if (!o.image.empty() && fs::equivalent(output, opened_as(o.image), ignored))
    fail(name, ": ", output.string(), ": is the picture that --image reads");
  if (!o.messages.empty() && fs::equivalent(output, o.messages, ignored))
    fail(name, ": ", output.string(), ": is the file that --messages reads");
  if (!o.weights.packed.empty() && fs::equivalent(output, o.weights.packed, ignored))
    fail(name, ": ", output.string(), ": is the file that --packed reads");
  if (fs::exists(output, ignored) &&
      (belongs_to_model(output, o.model) || (!o.mmproj.empty() && belongs_to_model(output, o.mmproj))))
    fail(name, ": ", output.string(), ": would overwrite a file of the model");
}

void check_picture_stays(const fs::path& picture, const fs::path& output, const char* name) {
  std::error_code ignored;
  if (fs::equivalent(output, picture, ignored))
    fail(name, ": ", output.string(), ": is a picture that is asked about");
}

void refuse_unread(const std::vector<unread_options>& rules, const given_options& given) {
  for (const auto& [applies, names, where] : rules)
    for (const char* name : names)
      if (applies && given(name)) fail(name, ": is not read ", where);
}

void refuse_unread(const options& o, const given_options& given) {
  const core_matching_config& s = o.sparsity;
  const bool core_neurons = finds_core_neurons(o);
  const bool counted = answers_with_core_neurons(o) || s.is_matched_with(reference_set::sentence);
  const bool chooses_otherwise = s.sparse_neurons && !answers_with_core_neurons(o);
  const bool counts_nothing =
      o.neurons.policy == neuron_policy::plain_gate || o.neurons.policy == neuron_policy::predicted;
  const bool by_chance = (s.sparse_tokens && s.criterion == token_criterion::random) ||
                         (o.thin && o.thin->criterion == thinning_criterion::random);
  const char* const none =
      given("--sparsity") ? "with --sparsity none" : "without --sparsity, which says what is left out";
  const std::vector<unread_options> rules{
      {given("--sparsity") || given("--thin"),
       {"--preset"},
       "beside --sparsity or --thin, which say what is left out"},
      {!s.sparse_tokens && !s.sparse_neurons,
       {"--rho", "--beta", "--match-layers", "--keep", "--keep-among", "--min-tokens", "--max-tokens",
        "--criterion", "--reference", "--anchor", "--count-over", "--core-count", "--neurons", "--statistic",
        "--neuron-layers", "--pruning", "--positions"},
       none},
      {!s.sparse_tokens && !s.sparse_neurons && !by_chance, {"--selection-seed"}, none},
      {!s.sparse_tokens,
       {"--match-layers", "--keep", "--keep-among", "--min-tokens", "--max-tokens", "--criterion",
        "--reference", "--anchor", "--pruning", "--positions"},
       "where --sparsity drops no tokens"},
      {!s.sparse_neurons,
       {"--neurons", "--statistic", "--neuron-layers"},
       "where --sparsity leaves no neurons out"},
      {!core_neurons && !s.sparse_neurons,
       {"--rho", "--beta", "--core-count"},
       "where --sparsity leaves no neurons out and tokens are not matched with core neurons"},
      {!counted && !s.sparse_neurons,
       {"--count-over"},
       "where --sparsity leaves no neurons out and tokens are not matched with the sentence's core neurons"},
      {o.neurons.policy != neuron_policy::sentence, {"--statistic"}, "without --neurons sentence"},
      {chooses_otherwise && !core_neurons,
       {"--rho", "--core-count"},
       "where neurons are not chosen by frequency and tokens are not matched with core neurons"},
      {chooses_otherwise && !counted && counts_nothing,
       {"--count-over"},
       "with --neurons gate:plain or predicted, which count nothing"},
      {o.neurons.calibrated || !o.neurons.beta_of_layer.empty(),
       {"--neuron-layers"},
       "with a --beta for each layer"},
      {!s.matches_neurons(), {"--reference", "--anchor"}, "with a --criterion that looks at no neurons"},
      {!s.is_matched_with(reference_set::anchor), {"--anchor"}, "without --reference anchor"},
      {o.image.empty() && o.messages.empty(),
       {"--image-fit", "--show-tokens", "--keep", "--keep-among", "--min-tokens", "--max-tokens", "--anchor",
        "--pruning", "--positions", "--selection-seed", "--match-layers", "--criterion", "--reference",
        "--thin", "--thin-keep"},
       "without --image"},
      {!by_chance, {"--selection-seed"}, "where nothing is left out by chance"},
      {!given("--thin"), {"--thin-keep"}, "without --thin"},
      {o.sampling.temperature == 0, {"--top-k", "--top-p", "--seed"}, "at --temperature 0"},
      {!o.prompt_ids.empty(), {"--system", "--chat-template"}, "with --prompt-ids"},
      {!o.raw_prompt.empty(), {"--system", "--chat-template"}, "with --raw-prompt"},
      {!o.messages.empty(), {"--system"}, "with --messages, which has a role for it"},
      {o.chat, {"--dump", "--show-tokens"}, "with --chat"},
      {o.device.what == device_choice::kind::cuda, {"--threads"}, "with --device cuda"}};
  refuse_unread(rules, given);
}

void check_thinning(const options& o, const given_options& given) {
  if (!o.thin) return;
  if (!given("--thin-keep")) fail("--thin: needs --thin-keep, which says how many image tokens stay");
  blame("--thin-keep", [&] { o.thin->validate(); });
}

void check_outputs(const options& o) {
  if (o.chat && o.image == "-")
    fail("--image: standard input cannot hold both a picture and the questions of --chat");
  check_output(o, o.dump, "--dump");
  check_output(o, o.show_tokens, "--show-tokens");
  // However each is spelled; both lie in directories that exist.
  const auto whole = [](const std::filesystem::path& output) {
    return std::filesystem::weakly_canonical(output);
  };
  if (!o.dump.empty() && !o.show_tokens.empty() && whole(o.dump) == whole(o.show_tokens))
    fail("--dump and --show-tokens name the same file, ", o.dump.string());
}

void check_neuron_policy(const options& o) {
  const auto values = o.neurons.beta_of_layer.size();
  if (values > 0 && finds_core_neurons(o))
    fail(
        "--beta: core neurons are found with one value for all layers, and there are ", values,
        "; --statistic magnitude and --neurons gate, gate:plain and predicted take one for each layer, where "
        "tokens are not matched with core neurons");
  if (!o.sparsity.sparse_neurons || o.neurons.policy != neuron_policy::predicted) return;
  const std::optional<dtype> weights = type_of_weights(o);
  if (!weights || !has_planes(*weights))
    fail("--neurons: predicted needs weights in two planes, of which the upper one foretells: --weights ",
         name_of(dtype::q8_0_planes), ", ", name_of(dtype::q4_0_planes), ", of GGUF files ",
         name_of(dtype::q4_k_planes), " or ", name_of(dtype::f16_planes));
  if (!foretells(o, *weights))
    fail("--neurons: predicted is computed by --device cuda with --weights ", name_of(dtype::f16_planes),
         " alone");
}

void check_beta(const options& o, index layers) {
  const std::string source = o.neurons.calibrated ? calibration_path(o).string() : "--beta";
  if (o.sparsity.sparse_neurons) blame(source.c_str(), [&] { shares_of(o).validate(layers); });
}

void check_sparsity(const core_matching_config& config, index layers, index neurons) {
  // From the defaults, one setting after the other: the first that is refused is at fault.
  core_matching_config so_far;
  const auto add = [&](const char* option, auto... members) {
    ((so_far.*members = config.*members), ...);
    blame(option, [&] { so_far.validate(layers, neurons); });
  };
  using all = core_matching_config;
  add("--beta", &all::beta);
  add("--rho", &all::rho);
  add("--neuron-layers", &all::neuron_layers_begin, &all::neuron_layers_end);
  add("--match-layers", &all::match_layers);
  add("--reference", &all::criterion, &all::reference);
  add("--positions", &all::positions, &all::pruning);
  const auto add_keep = [&](const char* option, auto... members) {
    ((so_far.keep.*members = config.keep.*members), ...);
    blame(option, [&] { so_far.validate(layers, neurons); });
  };
  using kept = select::keep_options;
  add_keep("--keep", &kept::rule, &kept::strict, &kept::count, &kept::ratio);
  add_keep("--min-tokens", &kept::min_tokens);
  add_keep("--max-tokens", &kept::max_tokens);
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include "llava/options.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "llava/option_checks.hpp"
#include "llava/option_values.hpp"
#include "llava/sparse_settings.hpp"
#include "support/error_text.hpp"

namespace corematching::driver {
namespace {

using arguments = std::vector<std::string>;

const arguments with_picture{"--prompt", "Why?", "--image", "p.png"};

options parse(const arguments& first, const arguments& more = {}) {
  std::vector<const char*> argv{"llava", "--model", "m"};
  for (const arguments* part : {&first, &more})
    for (const std::string& argument : *part) argv.push_back(argument.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

/// What is said about options that parse_options calls a wrong usage.
std::string usage_error(const arguments& more) {
  ::testing::internal::CaptureStderr();
  EXPECT_THROW(parse(with_picture, more), usage_exit);
  return ::testing::internal::GetCapturedStderr();
}

TEST(options, read_every_seed_that_there_is) {
  EXPECT_EQ(parse(with_picture).sampling.seed, 0u);
  EXPECT_EQ(parse(with_picture, {"--temperature", "1", "--seed", "7"}).sampling.seed, 7u);
  const arguments seeded{"--sparsity",          "both", "--criterion", "random", "--selection-seed",
                         "18446744073709551615"};
  EXPECT_EQ(parse(with_picture, seeded).sparsity.seed, UINT64_MAX);
}

TEST(options, refuse_what_is_no_seed) {
  for (const char* seed : {"-1", "18446744073709551616", "1.5", "x", "7 "}) {
    support::expect_parts(usage_error({"--temperature", "1", "--seed", seed}), "--seed: \"", seed,
                          "not a number");
    support::expect_parts(usage_error({"--criterion", "random", "--selection-seed", seed}),
                          "--selection-seed: \"", seed, "not a number");
  }
}

TEST(options, read_every_type_of_weights) {
  EXPECT_EQ(parse(with_picture).weights.type, std::nullopt);
  for (const dtype type : {dtype::f32, dtype::bf16, dtype::f16, dtype::q8_0, dtype::q4_0})
    EXPECT_EQ(parse(with_picture, {"--weights", name_of(type)}).weights.type, type);
  support::expect_parts(usage_error({"--weights", "q5_0"}), "--weights: \"q5_0\"", "q8_0");
}

TEST(options, read_what_computes) {
  using enum device_choice::kind;
  EXPECT_EQ(parse(with_picture).device.what, cpu);
  EXPECT_EQ(parse(with_picture, {"--device", "cpu"}).device.what, cpu);
  EXPECT_EQ(parse(with_picture, {"--device", "eigen", "--threads", "2"}).device.what, eigen);
  EXPECT_EQ(parse(with_picture, {"--device", "cuda"}).device.what, cuda);
  EXPECT_EQ(parse(with_picture, {"--device", "cuda:3"}).device.number, 3);
  for (const char* text : {"gpu", "Eigen", "eigen:1", "cuda:", "cuda:-1"})
    support::expect_parts(usage_error({"--device", text}), "--device", text);
}

TEST(options, refuse_files_without_a_name) {
  for (const char* option : {"--model", "--image", "--packed", "--dump", "--show-tokens"})
    support::expect_parts(usage_error({option, ""}), option, "the name is empty");
}

TEST(options, read_a_memory_limit_in_binary_units) {
  const auto limit = [](const char* text) {
    return parse(with_picture, {"--memory-limit", text}).weights.memory_limit;
  };
  EXPECT_EQ(parse(with_picture).weights.memory_limit, std::nullopt);
  EXPECT_EQ(limit("1000"), 1000u);
  EXPECT_EQ(limit("3K"), 3072u);
  EXPECT_EQ(limit("5M"), 5u << 20);
  EXPECT_EQ(limit("7G"), std::uint64_t{7} << 30);
  for (const char* text : {"", "G", "-1", "1.5G", "1T", "1k", "17179869184G"})
    support::expect_parts(usage_error({"--memory-limit", text}),
                          std::string("--memory-limit: \"") + text + "\"", "not a number");
}

// What stands before an option decides whether anything reads it.
struct reader {
  arguments before;
  bool read;
};

void expect_reading(const arguments& option, const std::vector<reader>& readers) {
  for (const auto& [before, read] : readers) {
    arguments all = before;
    all.insert(all.end(), option.begin(), option.end());
    SCOPED_TRACE(::testing::PrintToString(all));
    if (read) {
      EXPECT_NO_THROW(parse({}, all));
    } else {
      support::expect_parts(support::error_text([&] { parse({}, all); }), option[0] + ": is not read ");
    }
  }
}

/// `first` and `more`; everything is left out that can be, unless `more` has it otherwise.
arguments sparse(arguments first, const arguments& more) {
  if (std::ranges::count(more, "--sparsity") == 0) first.insert(first.end(), {"--sparsity", "both"});
  first.insert(first.end(), more.begin(), more.end());
  return first;
}
arguments seen(const arguments& more) {
  return sparse(with_picture, more);
}
arguments unseen(const arguments& more) {
  return sparse({"--prompt", "Why?"}, more);
}

TEST(options, leave_out_what_keeps_the_answers_unless_they_say_so) {
  const options safe = parse(with_picture);
  EXPECT_TRUE(safe.sparsity.sparse_tokens);
  EXPECT_EQ(safe.sparsity.criterion, token_criterion::rarity);
  EXPECT_FALSE(safe.sparsity.sparse_neurons) << "these weights foretell nothing";
  EXPECT_FALSE(parse(with_picture, {"--weights", "q4_0_planes"}).sparsity.sparse_neurons);
  const options foretold = parse(with_picture, {"--weights", "q8_0_planes"});
  EXPECT_TRUE(foretold.sparsity.sparse_neurons);
  EXPECT_EQ(foretold.neurons.policy, neuron_policy::predicted);
  EXPECT_FALSE(parse(with_picture, {"--weights", "q8_0_planes", "--device", "cuda"}).sparsity.sparse_neurons);
  for (const char* device : {"cpu", "cuda"}) {
    const options read_twice = parse(with_picture, {"--weights", "f16_planes", "--device", device});
    EXPECT_EQ(read_twice.neurons.policy, neuron_policy::predicted) << "what a calibration would be for";
    EXPECT_FALSE(read_twice.sparsity.sparse_neurons) << "so many would cost more than all";
  }
  EXPECT_FALSE(parse({"--chat", "--image", "p.png"}).sparsity.sparse_tokens)
      << "a further question may ask for what the first one did not";
  const core_matching_config both = parse(with_picture, {"--sparsity", "both"}).sparsity;
  EXPECT_TRUE(both.sparse_neurons && both.sparse_tokens);
  EXPECT_EQ(both.criterion, token_criterion::overlap);
}

TEST(options, name_presets) {
  const core_matching_config paper = parse(with_picture, {"--preset", "paper"}).sparsity, library;
  EXPECT_TRUE(paper.sparse_neurons && paper.sparse_tokens);
  EXPECT_EQ(paper.beta, library.beta);
  EXPECT_EQ(paper.criterion, library.criterion);
  const core_matching_config dense = parse(with_picture, {"--preset", "dense"}).sparsity;
  EXPECT_FALSE(dense.sparse_neurons || dense.sparse_tokens);
  for (const arguments& beside :
       std::vector<arguments>{{"--sparsity", "both"}, {"--thin", "random", "--thin-keep", "top_k:3"}}) {
    arguments all{"--preset", "paper"};
    all.insert(all.end(), beside.begin(), beside.end());
    support::expect_parts(support::error_text([&] { parse(with_picture, all); }), "--preset", "--sparsity");
  }
  support::expect_parts(usage_error({"--preset", "fast"}), "--preset");
}

TEST(options, of_sparsity_are_refused_by_default_and_say_what_they_need) {
  for (const arguments& option : std::vector<arguments>{{"--rho", "0.3"},
                                                        {"--beta", "0.3"},
                                                        {"--match-layers", "1"},
                                                        {"--keep", "strict"},
                                                        {"--min-tokens", "2"},
                                                        {"--max-tokens", "2"},
                                                        {"--keep-among", "all"},
                                                        {"--criterion", "overlap"},
                                                        {"--reference", "anchor"},
                                                        {"--anchor", "-2"},
                                                        {"--count-over", "text"},
                                                        {"--core-count", "mean_count"},
                                                        {"--neuron-layers", "0:2"},
                                                        {"--neurons", "gate"},
                                                        {"--statistic", "magnitude"},
                                                        {"--pruning", "everywhere"},
                                                        {"--positions", "original"},
                                                        {"--selection-seed", "1"}})
    support::expect_parts(support::error_text([&] { parse(with_picture, option); }),
                          option[0] + ": is not read ", "without --sparsity");
}

TEST(options, of_core_neurons_are_refused_where_nothing_needs_core_neurons) {
  for (const arguments& option : std::vector<arguments>{
           {"--rho", "0.3"}, {"--beta", "0.3"}, {"--count-over", "text"}, {"--core-count", "mean_count"}})
    expect_reading(
        option, {{seen({}), true},
                 {unseen({}), true},
                 {seen({"--sparsity", "neurons"}), true},
                 {seen({"--sparsity", "tokens"}), true},
                 {seen({"--criterion", "attention"}), true},
                 {seen({"--criterion", "rarity"}), true},
                 {seen({"--sparsity", "none"}), false},
                 {seen({"--sparsity", "tokens", "--criterion", "attention"}), false},
                 {seen({"--sparsity", "tokens", "--criterion", "rarity"}), false},
                 {seen({"--sparsity", "tokens", "--criterion", "rarity", "--reference", "sentence"}), true},
                 {seen({"--sparsity", "tokens", "--reference", "anchor"}), false}});
  const arguments contrast = seen({"--sparsity", "tokens", "--criterion", "contrast"});
  expect_reading({"--beta", "0.3"}, {{contrast, true}});
  expect_reading({"--rho", "0.3"}, {{contrast, true}});
  expect_reading({"--count-over", "text"}, {{contrast, false}});
  expect_reading({"--neuron-layers", "0:2"}, {{seen({}), true},
                                              {seen({"--sparsity", "neurons"}), true},
                                              {seen({"--sparsity", "tokens"}), false},
                                              {seen({"--sparsity", "none"}), false}});
}

/// Neurons alone are left out, by a policy, unless `more` has it otherwise.
arguments choosing(const arguments& policy, const arguments& more = {}) {
  arguments all = policy;
  all.insert(all.end(), more.begin(), more.end());
  all.insert(all.end(), {"--weights", "q8_0_planes"});
  if (std::ranges::count(more, "--sparsity") == 0) all.insert(all.end(), {"--sparsity", "neurons"});
  return seen(all);
}
const arguments by_magnitude{"--statistic", "magnitude"}, by_gate{"--neurons", "gate"},
    by_plain_gate{"--neurons", "gate:plain"}, by_prediction{"--neurons", "predicted"};

TEST(options, read_which_neurons_answer) {
  EXPECT_EQ(parse({}, seen({})).neurons.policy, neuron_policy::sentence);
  EXPECT_EQ(parse({}, seen({})).neurons.statistic, neuron_statistic::frequency);
  EXPECT_EQ(parse({}, choosing(by_magnitude)).neurons.statistic, neuron_statistic::magnitude);
  EXPECT_EQ(parse({}, choosing(by_gate)).neurons.policy, neuron_policy::gate);
  EXPECT_EQ(parse({}, choosing(by_plain_gate)).neurons.policy, neuron_policy::plain_gate);
  EXPECT_EQ(parse({}, choosing(by_prediction)).neurons.policy, neuron_policy::predicted);
  support::expect_parts(usage_error({"--neurons", "best"}), "--neurons: \"best\"", "gate:plain");
  support::expect_parts(usage_error({"--statistic", "mean"}), "--statistic: \"mean\"", "magnitude");
}

TEST(options, read_one_beta_or_one_for_each_layer) {
  const auto read = [](const char* beta) { return parse({}, choosing(by_gate, {"--beta", beta})); };
  EXPECT_EQ(read("0.3").sparsity.beta, 0.3);
  EXPECT_TRUE(read("0.3").neurons.beta_of_layer.empty());
  EXPECT_EQ(read("0.3,1,0.25").neurons.beta_of_layer, (std::vector<double>{0.3, 1, 0.25}));
  for (const char* beta : {"x", "0.3,", ",0.3", "0.3,,1", "0.3;1"})
    support::expect_parts(usage_error({"--sparsity", "both", "--beta", beta}), "--beta: \"", beta);
}

TEST(options, of_other_policies_are_refused_where_they_go_unread) {
  expect_reading({"--statistic", "magnitude"},
                 {{choosing({}), true}, {choosing(by_gate), false}, {seen({"--sparsity", "tokens"}), false}});
  expect_reading(by_gate, {{choosing({}), true}, {seen({"--sparsity", "tokens"}), false}});
  for (const arguments& option : std::vector<arguments>{{"--rho", "0.3"}, {"--core-count", "mean_count"}})
    for (const arguments* policy : {&by_magnitude, &by_gate, &by_plain_gate, &by_prediction})
      expect_reading(option,
                     {{choosing(*policy), false},
                      {choosing(*policy, {"--sparsity", "both"}), true},
                      {choosing(*policy, {"--sparsity", "both", "--criterion", "attention"}), false}});
  expect_reading({"--count-over", "text"}, {{choosing(by_magnitude), true},
                                            {choosing(by_gate), true},
                                            {choosing(by_plain_gate), false},
                                            {choosing(by_prediction), false},
                                            {choosing(by_prediction, {"--sparsity", "both"}), true}});
  expect_reading({"--neuron-layers", "0:2"},
                 {{choosing(by_prediction), true}, {choosing(by_gate, {"--beta", "0.3,0.4"}), false}});
}

TEST(options, refuse_a_beta_for_each_layer_where_core_neurons_are_found) {
  const auto refusal = [](const arguments& all) { return support::error_text([&] { parse({}, all); }); };
  const arguments list{"--beta", "0.3,0.4"}, both{"--beta", "0.3,0.4", "--sparsity", "both"};
  EXPECT_NO_THROW(parse({}, choosing(by_magnitude, list)));
  support::expect_parts(refusal(choosing({}, list)), "--beta: ", "there are 2", "--neurons gate");
  support::expect_parts(refusal(choosing(by_gate, both)), "--beta: ", "there are 2");
}

TEST(options, refuse_predictions_without_planes_and_by_quants_on_a_device) {
  const auto refusal = [](arguments all) {
    all.insert(all.end(), by_prediction.begin(), by_prediction.end());
    return support::error_text([&] { parse({}, all); });
  };
  const auto neurons = seen({"--sparsity", "neurons"});
  support::expect_parts(refusal(neurons), "--neurons: predicted ", "--weights q8_0_planes", "f16_planes");
  support::expect_parts(refusal(seen({"--sparsity", "both", "--weights", "q8_0"})), "--weights q8_0_planes");
  support::expect_parts(refusal(choosing({}, {"--device", "cuda:1"})), "--neurons: predicted ",
                        "--device cuda with --weights f16_planes");
  EXPECT_NO_THROW(parse({}, choosing(by_prediction, {"--device", "eigen"})));
  for (const char* device : {"cpu", "cuda"})
    EXPECT_NO_THROW(parse({}, seen({"--sparsity", "neurons", "--neurons", "predicted", "--weights",
                                    "f16_planes", "--device", device})));
}

TEST(options, of_core_tokens_are_refused_where_no_tokens_are_dropped) {
  for (const arguments& option : std::vector<arguments>{{"--keep", "top_k:3"},
                                                        {"--min-tokens", "2"},
                                                        {"--max-tokens", "2"},
                                                        {"--keep-among", "all"},
                                                        {"--pruning", "everywhere"},
                                                        {"--positions", "original"}})
    expect_reading(option, {{seen({}), true},
                            {seen({"--sparsity", "tokens"}), true},
                            {seen({"--sparsity", "neurons"}), false},
                            {seen({"--sparsity", "none"}), false},
                            {unseen({}), false}});
  for (const arguments& option : std::vector<arguments>{{"--match-layers", "1"}, {"--criterion", "overlap"}})
    expect_reading(option, {{seen({}), true},
                            {seen({"--sparsity", "tokens"}), true},
                            {seen({"--sparsity", "neurons"}), false},
                            {seen({"--sparsity", "none"}), false},
                            {unseen({}), false}});
}

// Beside the ends of the type, where a range has no number behind it, or more than the type counts.
TEST(options, hold_layers_of_any_number) {
  constexpr index least = std::numeric_limits<index>::min(), most = std::numeric_limits<index>::max();
  EXPECT_EQ(layer_list("9223372036854775806-9223372036854775807"), (std::vector<index>{most - 1, most}));
  EXPECT_EQ(layer_list("-9223372036854775808"), (std::vector<index>{least}));
  for (const char* range : {"-9223372036854775808-5", "-5-9223372036854775807", "0-4097", "5-4"})
    support::expect_parts(support::error_text([&] { layer_list(range); }), "is not an ascending range");
}

TEST(options, with_empty_values_are_refused) {
  for (const char* option : {"--rho", "--beta", "--top-k", "--temperature", "--min-tokens", "--anchor"})
    support::expect_parts(usage_error({option, ""}), std::string(option) + ": its value is empty");
}

TEST(options, of_one_criterion_are_refused_with_another) {
  expect_reading({"--reference", "sentence"}, {{seen({}), true},
                                               {seen({"--criterion", "projection"}), false},
                                               {seen({"--sparsity", "neurons"}), false}});
  expect_reading({"--anchor", "-2"}, {{seen({"--reference", "anchor"}), true},
                                      {seen({"--criterion", "contrast"}), true},
                                      {seen({"--criterion", "contrast", "--reference", "text"}), false},
                                      {seen({"--criterion", "rarity"}), false},
                                      {seen({"--criterion", "rarity", "--reference", "anchor"}), true},
                                      {seen({}), false},
                                      {unseen({"--reference", "anchor"}), false},
                                      {seen({"--sparsity", "none"}), false}});
  expect_reading({"--selection-seed", "1"}, {{seen({"--criterion", "random"}), true},
                                             {seen({}), false},
                                             {unseen({"--criterion", "random"}), false},
                                             {seen({"--sparsity", "none"}), false}});
}

TEST(options, choose_criteria_and_what_they_are_matched_with) {
  const auto of = [](const arguments& more) { return parse(seen(more)).sparsity; };
  EXPECT_EQ(of({}).criterion, token_criterion::overlap);
  EXPECT_EQ(of({}).reference, std::nullopt);
  EXPECT_EQ(of({}).among, kept_among::each);
  EXPECT_EQ(of({"--criterion", "rarity"}).matched_with(), reference_set::question);
  EXPECT_EQ(of({"--criterion", "contrast", "--reference", "text"}).matched_with(), reference_set::text);
  EXPECT_EQ(of({"--keep-among", "all"}).among, kept_among::all);
  support::expect_parts(usage_error({"--criterion", "rare"}), "--criterion", "rare", "overlap", "contrast");
  support::expect_parts(support::error_text([&] {
                          check_sparsity(of({"--criterion", "rarity", "--reference", "text"}), 4, 10);
                        }),
                        "--reference: ", "rarity", "text");
}

TEST(options, ask_no_core_neurons_of_a_model_where_none_are_found) {
  const auto check = [](const arguments& more) {
    const options o = parse(sparse({"--prompt", "Why?", "--image", "p.png", "--criterion", "rarity"}, more));
    check_sparsity(matching_of(o), 4, 2);
  };
  EXPECT_NO_THROW(check({"--sparsity", "tokens"}));
  EXPECT_NO_THROW(check({"--sparsity", "both", "--neurons", "gate", "--beta", "1"}));
  support::expect_parts(support::error_text([&] {
                          check({"--sparsity", "both", "--beta", "0.3"});
                        }),
                        "--beta: ", "beta 0.3 selects none of 2 neurons");
}

TEST(options, of_dropping_before_the_decoder_say_what_and_how_much) {
  EXPECT_FALSE(parse(with_picture).thin);
  const auto half = parse(with_picture, {"--thin", "duplication", "--thin-keep", "ratio:0.5"}).thin;
  ASSERT_TRUE(half);
  EXPECT_EQ(half->criterion, thinning_criterion::duplication);
  EXPECT_EQ(half->keep.rule, select::keep_rule::ratio);
  EXPECT_EQ(half->keep.ratio, 0.5);
  const arguments by_chance{"--thin", "random", "--thin-keep", "top_k:9"};
  EXPECT_EQ(parse(with_picture, by_chance).thin->criterion, thinning_criterion::random);
  EXPECT_EQ(parse(with_picture, by_chance).thin->keep.count, 9);
  EXPECT_FALSE(parse(with_picture, by_chance).sparsity.sparse_tokens) << "no layer drops any";

  const auto refusal = [](const arguments& more) {
    return support::error_text([&] { parse(with_picture, more); });
  };
  support::expect_parts(refusal({"--thin", "random"}), "--thin: ", "--thin-keep");
  support::expect_parts(refusal({"--thin-keep", "top_k:9"}), "--thin-keep: is not read ", "--thin");
  for (const char* elbow : {"max_distance", "strict"})
    support::expect_parts(refusal({"--thin", "random", "--thin-keep", elbow}),
                          "--thin-keep: ", "max_distance", "before the decoder");
  support::expect_parts(refusal({"--thin", "random", "--thin-keep", "top_k:0"}), "--thin-keep: ", "top_k");
  support::expect_parts(usage_error({"--thin", "overlap"}), "--thin: ", "overlap", "duplication");
  support::expect_parts(usage_error({"--thin", "random", "--thin-keep", "half"}), "--thin-keep: ", "half");
  support::expect_parts(usage_error({"--thin", "random", "--thin-keep", "top_k:x"}), "--thin-keep top_k: ");
  expect_reading({"--thin", "random", "--thin-keep", "top_k:2"}, {{with_picture, true}, {unseen({}), false}});
  expect_reading(
      {"--selection-seed", "3"},
      {{{"--prompt", "Why?", "--image", "p.png", "--thin", "random", "--thin-keep", "top_k:2"}, true},
       {seen({"--thin", "duplication", "--thin-keep", "top_k:2"}), false}});
}

TEST(options, of_drawing_are_refused_where_the_likeliest_token_is_taken) {
  for (const arguments& option :
       std::vector<arguments>{{"--seed", "1"}, {"--top-k", "3"}, {"--top-p", "0.5"}})
    expect_reading(
        option,
        {{seen({"--temperature", "0.5"}), true}, {seen({}), false}, {seen({"--temperature", "0"}), false}});
}

TEST(options, of_pictures_and_prompts_are_refused_without_them) {
  expect_reading({"--image-fit", "pad"}, {{seen({}), true}, {unseen({}), false}});
  expect_reading({"--show-tokens", "out.png"},
                 {{seen({}), true}, {seen({"--sparsity", "none"}), true}, {unseen({}), false}});
  expect_reading({"--system", "Be brief."},
                 {{unseen({}), true}, {{"--prompt-ids", "1,2"}, false}, {{"--raw-prompt", "Why?"}, false}});
}

}  // namespace
}  // namespace corematching::driver

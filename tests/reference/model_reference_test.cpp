// SPDX-License-Identifier: Apache-2.0
// Every stored run of tests/reference/data is done again and compared with what transformers computed, from
// the pixels to the generated ids. tests/reference/README.md says how the data was made.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/model/llava/thinning.hpp"
#include "corematching/select.hpp"
#include "support/conversation.hpp"
#include "support/reference_model.hpp"
#include "support/reference_run.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using test::reference_model;
using test::reference_run;
using B = support::test_backend;

// References are computed in binary64. One binary32 layer errs by a few 2^-24 times the square root of its
// longest sum; residual additions and the norms carry that on. transformers' own binary32 run shows 1e-6 to
// 4e-6 on these models ("float32_error" in reference.json); we allow as much again times ten for another
// order of summation, a tenth of the 2e-4 that the project promises for logits.
constexpr double tolerance = 2e-5;

/// A stored run that remembers what of it was compared: a tensor that is passed over would pass for one that
/// agrees.
class compared_run : public reference_run {
 public:
  using reference_run::reference_run;

  /// The stored values, which the caller compares.
  template <class T>
  std::vector<T> expected(const std::string& tensor) {
    compared_.insert(tensor);
    return values<T>(tensor);
  }

  /// Stored tensors that nobody asked for. Those of transformers' own binary32 run are there to show its
  /// error.
  std::vector<std::string> left_over() const {
    std::vector<std::string> names;
    for (const std::string_view name : tensor_names())
      if (name != "logits_f32" && !compared_.contains(name)) names.emplace_back(name);
    return names;
  }

 private:
  std::set<std::string, std::less<>> compared_;
};

// A run stores what it is about: only small ones have every layer's output.
void expect_near(std::span<const float> actual, compared_run& run, const std::string& name) {
  if (!run.has(name)) return;
  const auto expected = run.expected<float>(name);
  ASSERT_EQ(actual.size(), expected.size()) << name;
  EXPECT_LE(test::relative_distance(actual, expected), tolerance) << name;
}

reference_model& model_of(const std::string& name) {
  static std::map<std::string, std::unique_ptr<reference_model>> models;
  auto& model = models[name];
  if (!model) model = std::make_unique<reference_model>(test::model_directory(name));
  return *model;
}

matrix<B> image_features(reference_model& m, compared_run& run) {
  if (!run.has_picture()) return {};
  const std::vector<float> pixels = m.pixels(run);
  if (run.has("pixel_values")) {
    const auto expected = run.expected<float>("pixel_values");
    EXPECT_EQ(pixels.size(), expected.size());
    for (std::size_t i = 0; i < std::min(pixels.size(), expected.size()); ++i)
      EXPECT_NEAR(pixels[i], expected[i], 1e-6) << "pixel value " << i;
  }
  matrix<B> features = m.multimodal->encode_image(m.be, pixels);
  std::vector<float> values;
  download_values(m.be, features.view(), values);
  expect_near(values, run, "image_features");
  return features;
}

void expect_layers(const layer_recording& recording, compared_run& run) {
  for (const auto& [layer, output] : recording.outputs)
    expect_near(output.values, run, "layers." + std::to_string(layer) + ".output");
  for (const auto& [layer, activation] : recording.activations)
    expect_near(activation.values, run, "layers." + std::to_string(layer) + ".ffn_activation");
}

/// Core neurons of a layer that decodes with all of them, and so is not asked to choose.
std::vector<std::int32_t> found_in(const recorded_matrix& activation, const core_matching_config& config) {
  EXPECT_EQ(config.count_over, counted_tokens::all);
  return select::core_neurons(activation.values.data(), activation.rows, activation.cols, activation.cols,
                              config.rho, config.beta, config.count);
}

void expect_decisions(B& be, const core_matching<B>& state, compared_run& run, index layers,
                      const layer_recording& recording) {
  std::size_t matches = 0;
  for (index layer = 0; layer < layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto chosen = support::downloaded(be, state.core_neurons(layer));
    EXPECT_TRUE(!chosen.empty() || !state.config().decodes_sparsely(layer, layers)) << "layer " << layer;
    if (run.has(prefix + "core_neurons")) {
      EXPECT_EQ(chosen.empty() ? found_in(recording.activations.at(layer), state.config()) : chosen,
                run.expected<std::int32_t>(prefix + "core_neurons"))
          << "layer " << layer;
    }
    if (!run.has(prefix + "kept_positions")) continue;
    const auto match = std::ranges::find(state.matches(), layer, &token_match::layer);
    ASSERT_NE(match, state.matches().end()) << "layer " << layer;
    EXPECT_EQ(match->kept_positions, run.expected<std::int32_t>(prefix + "kept_positions"))
        << "layer " << layer;
    ++matches;
  }
  EXPECT_EQ(matches, state.matches().size());
}

/// What enters the decoder: of a run that drops image tokens before it, not all.
thinned_prompt<B> entering(reference_model& m, compared_run& run, const multimodal_prompt& prompt,
                           matrix<B> features) {
  if (const auto config = run.thinning()) {
    thinned_prompt<B> left = thin(m.be, prompt, features.view(), 0, *config);
    EXPECT_EQ(left.places, run.expected<std::int32_t>("before_decoder.kept_positions"));
    return left;
  }
  std::vector<std::int32_t> places(static_cast<std::size_t>(prompt.size()));
  std::iota(places.begin(), places.end(), 0);
  return {prompt, std::move(places), std::move(features)};
}

/// Prefills and decodes greedily for as many steps as are stored; returns the logits of all steps.
std::vector<float> run_again(reference_model& m, compared_run& run, std::vector<std::int32_t>& generated) {
  const llama<B>& language = m.language();
  const multimodal_prompt prompt = m.prompt(run);
  const thinned_prompt<B> entered = entering(m, run, prompt, image_features(m, run));
  matrix<B> x = embed_prompt(m.be, language, entered.prompt, entered.image_features.view());
  const prompt_places places{{entered.places.data(), x.rows()}, prompt.size()};
  std::vector<float> embedded;
  download_values(m.be, x.view(), embedded);
  expect_near(embedded, run, "inputs_embeds");

  sequence<B> seq = language.start(m.be, 64);
  layer_recording recording;
  std::optional<core_matching<B>> state;
  std::vector<float> logits;
  if (run.is_sparse()) {
    state.emplace(m.be, run.config(), language.config().layers, shape_of(language.config()));
    state->begin_prompt(0, prompt.kinds);
    logits = with_prefill_hook(*state, [&](auto hook) {
      return language.prefill(m.be, seq, x.view(), places, prompt.size(),
                              chain{record_hook<B>(recording), hook});
    });
    expect_decisions(m.be, *state, run, language.config().layers, recording);
  } else {
    logits = language.prefill(m.be, seq, x.view(), places, prompt.size(), record_hook<B>(recording));
  }
  expect_layers(recording, run);

  std::vector<float> all;
  sampling_options options;
  options.vocabulary_limit = m.multimodal ? m.multimodal->config().image_token_index : 0;
  sampler greedy(options);
  const auto choose = [&](std::span<const float> from) {
    all.insert(all.end(), from.begin(), from.end());
    return greedy(from);
  };
  const auto keep = [&](std::int32_t id) { generated.push_back(id); };
  const stop_rule steps{std::ssize(run.generated_ids()), {}};
  if (state) {
    generate(m.be, language, seq, logits, choose, steps, core_matching<B>::decode_hook(*state), keep);
  } else {
    generate(m.be, language, seq, logits, choose, steps, no_hook{}, keep);
  }
  return all;
}

struct run_name {
  std::string model;
  std::size_t number;
  std::string run;

  friend std::ostream& operator<<(std::ostream& to, const run_name& n) {
    return to << n.model << " " << n.run;
  }
};

std::vector<run_name> stored_runs() {
  std::vector<run_name> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::reference_directory(""))) {
    const std::string model = entry.path().filename();
    if (support::is_emulated && model == "demo") continue;  // too large to be computed thread by thread
    const io::json description = test::reference_description(model);
    if (!description.contains("runs")) continue;  // not of a model
    for (std::size_t i = 0; i < description.at("runs").size(); ++i)
      names.push_back({model, i, description.at("runs").at(i).at("name")});
  }
  std::ranges::sort(names, {}, [](const run_name& n) { return std::pair(n.model, n.number); });
  return names;
}

class model_reference : public ::testing::TestWithParam<run_name> {};

TEST_P(model_reference, agrees_with_transformers) {
  const run_name& name = GetParam();
  compared_run run(test::reference_directory(name.model),
                   test::reference_description(name.model).at("runs").at(name.number));
  ASSERT_TRUE(run.has("logits")) << "a run without logits shows nothing";
  std::vector<std::int32_t> generated;
  const std::vector<float> logits = run_again(model_of(name.model), run, generated);
  EXPECT_EQ(generated, run.generated_ids());
  expect_near(logits, run, "logits");
  EXPECT_EQ(run.left_over(), std::vector<std::string>{}) << "stored, but compared with nothing";
}

INSTANTIATE_TEST_SUITE_P(stored, model_reference, ::testing::ValuesIn(stored_runs()),
                         [](const auto& run) { return run.param.model + "_" + run.param.run; });

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Core neurons and core tokens for an engine that has its own tensors.
//
// The activations are made up, so that the right answer is known: the sentence speaks about one subject,
// which fires the neurons from 64 to 191; of the 576 image tokens those in a square of 8 x 8 patches show the
// subject, the others show background and fire neurons of their own. The program exits with 1 if the
// selectors see it differently.
#include <cstdint>
#include <iostream>
#include <random>
#include <vector>

#include "corematching/select.hpp"

namespace cm = corematching;

namespace {

constexpr int patches_per_side = 24;
constexpr int image_tokens = patches_per_side * patches_per_side;
constexpr int text_tokens = 64;
constexpr int neurons = 512;

bool shows_subject(int patch) {
  const int row = patch / patches_per_side, column = patch % patches_per_side;
  return row >= 10 && row < 18 && column >= 4 && column < 12;
}

bool is_of_subject(int neuron) {
  return neuron >= 64 && neuron < 192;
}

/// What enters the down projection of one feed-forward block, [image_tokens + text_tokens, neurons],
/// row-major.
std::vector<float> make_activations() {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> quiet(-0.3f, 0.0f);
  std::uniform_real_distribution<float> strong(1.0f, 2.0f);
  std::vector<float> activation;
  for (int token = 0; token < image_tokens + text_tokens; ++token) {
    const bool about_subject = token >= image_tokens || shows_subject(token);
    const int background = 192 + token * 37 % 288;  // 32 neurons that this patch shares with few others
    for (int n = 0; n < neurons; ++n) {
      const bool fires = about_subject ? is_of_subject(n) : n >= background && n < background + 32;
      activation.push_back(fires ? strong(random) : quiet(random));
    }
  }
  return activation;
}

}  // namespace

int main() {
  const std::vector<float> activation = make_activations();
  const double rho = 0.2;   // share of a token's activated neurons that are its core
  const double beta = 0.2;  // share of the neurons that are the core of the sentence

  // 1. From the feed-forward block of a layer, over all tokens of the prompt: which neurons will decoding
  // need?
  const std::vector<std::int32_t> core = cm::select::core_neurons(
      activation.data(), image_tokens + text_tokens, neurons, /*stride=*/neurons, rho, beta);

  // 2. At the layer where tokens are dropped, over its image tokens: which rows go on? The elbow of the
  // scores is the first token past the edge; here it stands for a flat background, so it is to go as well.
  cm::select::keep_options options;
  options.strict = true;
  const std::vector<std::int32_t> kept =
      cm::select::core_tokens(activation.data(), image_tokens, neurons, /*stride=*/neurons,
                              {core.data(), static_cast<cm::index>(core.size())}, options);

  // Or, with no core neurons at all: by how rare the neurons are that a token shares with the question.
  const std::vector<std::int32_t> question = cm::select::firing_tokens(
      activation.data() + image_tokens * neurons, text_tokens, neurons, /*stride=*/neurons);
  const std::vector<std::int32_t> rare =
      cm::select::rare_tokens(activation.data(), image_tokens, /*stride=*/neurons,
                              {question.data(), static_cast<cm::index>(question.size())}, options);

  int of_subject = 0;
  for (const std::int32_t n : core) of_subject += is_of_subject(n) ? 1 : 0;
  int on_subject = 0;
  for (const std::int32_t patch : kept) on_subject += shows_subject(patch) ? 1 : 0;

  std::cout << "core neurons: " << core.size() << " of " << neurons << ", " << of_subject
            << " of them of the subject\n"
            << "kept tokens:  " << kept.size() << " of " << image_tokens << ", " << on_subject
            << " of the subject's 64\n"
            << "by rarity:    " << (rare == kept ? "the same\n" : "others\n");
  const bool as_expected =
      core.size() == 102 && of_subject == 102 && kept.size() == 64 && on_subject == 64 && rare == kept;
  return as_expected ? 0 : 1;
}

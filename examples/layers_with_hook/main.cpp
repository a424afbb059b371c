// SPDX-License-Identifier: Apache-2.0
// A LLaMA checkpoint run with two hooks at once: CoreMatching's, which decides, and one of our own, which
// watches how many neurons fire in each layer.
//
//   layers_with_hook MODEL_DIRECTORY TOKEN_ID...
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "corematching/cpu_linked.hpp"

namespace cm = corematching;
using backend = cm::linked_backend<cm::host_space>;

namespace {

/// A hook lists the sites it attends and is called there; nothing else is asked of it.
struct firing_share {
  using attends = cm::sites<cm::site::ffn_activation>;

  void operator()(cm::site::ffn_activation, const cm::layer_context<backend>& at,
                  cm::matrix_view<const float> activation) {
    std::int64_t firing = 0;
    for (cm::index token = 0; token < activation.rows; ++token)
      for (const float value : activation.row(token)) firing += value > 0 ? 1 : 0;
    std::cout << "layer " << at.layer << ": " << 100 * firing / (activation.rows * activation.cols)
              << " % of neurons fire\n";
  }
};

void run(const std::string& directory, const std::vector<std::int32_t>& ids) {
  backend be = cm::cpu::make_linked_backend();
  const cm::model_config config = cm::read_model_config(directory);
  const auto files = cm::io::checkpoint::open(directory);
  cm::weight_reader<backend> reader(be, files);
  const cm::llama<backend> model(be, config.text(), reader);

  // State of one conversation: the KV cache, and what CoreMatching learns from its prompt.
  cm::sequence<backend> seq = model.start(be, /*headroom=*/16);
  cm::core_matching<backend> sparsity(be, {.rho = 0.2, .beta = 0.4}, config.text().layers,
                                      cm::shape_of(config.text()));
  const auto prompt = cm::expand_images(ids, /*image_token=*/-1, /*tokens_per_image=*/0);
  sparsity.begin_prompt(seq.next_position, prompt.kinds);

  cm::matrix<backend> x = cm::embed_prompt(be, model, prompt, {});
  cm::chain hooks{firing_share{}, cm::core_matching<backend>::prefill_hook(sparsity)};
  std::vector<float> logits = model.prefill(be, seq, x.view(), /*ffn_rows=*/x.rows(), hooks);
  for (cm::index layer = 0; layer < config.text().layers; ++layer)
    std::cout << "layer " << layer << ": answers with " << sparsity.core_neurons(layer).size << " of "
              << config.text().intermediate_size << " neurons\n";

  const cm::core_matching<backend>::decode_hook core_neurons_only(sparsity);
  cm::generate(be, model, seq, logits, cm::sampler{},
               {.max_new_tokens = 16, .stop_ids = config.text().eos_token_ids}, core_neurons_only,
               [](std::int32_t id) { std::cout << id << ' '; });
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: layers_with_hook MODEL_DIRECTORY TOKEN_ID...\n";
    return 2;
  }
  try {
    std::vector<std::int32_t> ids;
    for (int i = 2; i < argc; ++i) ids.push_back(std::stoi(argv[i]));
    run(argv[1], ids);
  } catch (const std::exception& problem) {
    std::cerr << "layers_with_hook: " << problem.what() << '\n';
    return 1;
  }
}

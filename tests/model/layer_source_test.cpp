// SPDX-License-Identifier: Apache-2.0
// What a model asks of the source of its layers, and when.
#include "corematching/model/llama/layer_source.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using calls = std::vector<std::string>;

/// Layers in memory that say what they are asked for.
class told_layers final : public layer_source<B> {
 public:
  told_layers(const llama_config& config, llama_weights<B> weights, calls& told)
      : layers_(config, std::move(weights)), told_(told) {}

  const outer_weights<B>& outer() const override { return layers_.outer(); }
  void embed(B& be, view x, std::span<const std::int32_t> ids, index_view<space> placed) override {
    told_.push_back("embed " + std::to_string(ids.size()));
    layers_.embed(be, x, ids, placed);
  }
  void begin_prompt(layer_subsets<B>& subsets) override {
    told_.push_back("prompt for " + std::to_string(subsets.size()));
  }
  const decoder_layer<B>& prompt_layer(B& be, index i) override {
    told_.push_back("layer " + std::to_string(i));
    return layers_.prompt_layer(be, i);
  }
  void end_prompt_layer(B&, index i, layer_subsets<B>&, const ask_neurons& neurons) override {
    const auto wanted = i == 1 ? neurons() : neuron_selection<space>();
    told_.push_back("seen " + std::to_string(i) + (wanted ? " of " + std::to_string(wanted->size) : ""));
  }
  const decoder_layer<B>& decoding_layer(B& be, index i, const layer_subsets<B>& subsets) override {
    told_.push_back("decode " + std::to_string(i));
    return layers_.decoding_layer(be, i, subsets);
  }
  bool stays_in_place() const override { return false; }
  layer_bytes bytes_of_layer(index i) const override { return layers_.bytes_of_layer(i); }
  std::uint64_t held_bytes() const override { return 7; }
  std::uint64_t streamed_bytes() const override { return 8; }

 private:
  resident_layers<B> layers_;
  calls& told_;
};

/// Says which neurons decoding will compute, and that it was asked.
struct answering_hook {
  using attends = sites<site::decode_neurons>;
  calls* told;
  index_view<B::space> neurons;
  neuron_selection<B::space> operator()(site::decode_neurons, const layer_context<B>& at) const {
    told->push_back("asked " + std::to_string(at.layer));
    return neurons;
  }
};

TEST(layer_source, is_asked_for_one_layer_at_a_time) {
  llama_config config = support::tiny_config();
  config.layers = 2;
  B be = support::make_backend<B>(1);
  const io::checkpoint from = support::unlinked_checkpoint(support::random_tensors(config, 3));
  weight_reader<B> reader(be, from);
  calls told;
  const llama<B> model(be, config,
                       std::make_unique<told_layers>(config, read_llama_weights<B>(config, reader), told));
  EXPECT_EQ(model.held_weight_bytes(), 7u);
  EXPECT_EQ(model.streamed_weight_bytes(), 8u);

  auto seq = model.start(be, 4);
  matrix<B> x(be, 3, config.hidden_size);
  model.embed(be, x.view(), std::vector<std::int32_t>{1, 2, 3});
  const std::vector<std::int32_t> some{4, 9};
  const auto placed = device_indices(be, {some.data(), 2});
  model.prefill(be, seq, x.view(), 3, answering_hook{&told, placed.view()});
  EXPECT_EQ(told,
            (calls{"embed 3", "prompt for 2", "layer 0", "seen 0", "layer 1", "asked 1", "seen 1 of 2"}));

  told.clear();
  model.decode(be, seq, 5);
  EXPECT_EQ(told, (calls{"embed 1", "decode 0", "decode 1"}));
}

}  // namespace
}  // namespace corematching

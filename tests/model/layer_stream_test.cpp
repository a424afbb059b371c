// SPDX-License-Identifier: Apache-2.0
// A model under a memory limit answers as the whole one does.
#include "corematching/model/llama/streamed_layers.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "corematching/backend/linked/cpu.hpp"
#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/model/packed/pack.hpp"
#include "corematching/model/packed/reader.hpp"
#include "support/error_text.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using support::error_text;
using support::expect_parts;

class memory_limit : public testing::Test {
 protected:
  // In two planes, whose rows are copied in two parts; the other matrices are then q8_0 or f16.
  static constexpr dtype type = support::has_block_formats ? dtype::q8_0_planes : dtype::f16_planes;

  static llama_config sizes() {
    llama_config config = support::tiny_config();
    config.hidden_size = 64;
    config.intermediate_size = support::is_emulated ? 320 : 960;
    config.layers = 6;
    config.heads = 4;
    config.head_dim = 16;
    return config;
  }

  llama_config config = sizes();
  support::temporary_directory directory;
  std::filesystem::path path = directory.path() / "model.packed";
  std::string identity;
  B be = support::make_backend<B>(1);

  packed_file packed() {
    if (!std::filesystem::exists(path)) {
      const auto from = support::write_checkpoint(directory.path(), support::random_tensors(config, 5));
      auto packer = cpu::make_linked_backend(1);
      pack(packer, config, from, type, path);
      identity = checkpoint_identity(from);
    }
    return {path, config, type, identity};
  }
  llama<B> whole() {
    const packed_file file = packed();
    packed_reader<B> reader(be, file);
    return {be, config, reader};
  }
  llama<B> limited(std::uint64_t bytes) { return streamed_llama(be, config, packed(), bytes); }

  /// The least that a limit must allow, as the refusal of a smaller one says it.
  std::uint64_t least() {
    const std::string text = error_text([&] { limited(1); });
    return std::stoull(text.substr(text.find("at least ") + 9));
  }
  std::uint64_t layer_bytes() { return packed().layout().layer(0).size(); }

  core_matching_config sparse() const {
    core_matching_config wanted;
    wanted.match_layers = {2};
    wanted.keep.rule = select::keep_rule::top_k;
    wanted.keep.count = 3;
    return wanted;
  }

  /// Logits of two prompts and of the tokens that answer each; `sparse`: with CoreMatching.
  std::vector<float> conversation(const llama<B>& model, bool is_sparse) {
    std::vector<float> all;
    const auto add = [&](const std::vector<float>& logits) {
      all.insert(all.end(), logits.begin(), logits.end());
    };
    auto seq = model.start(be, 20);
    core_matching<B> state(be, sparse(), config.layers, shape_of(config));
    const std::vector<std::int32_t> ids{3, 1, 60, 7, 7, 9, 12, 13, 4};
    std::vector<token_kind> kinds(ids.size(), token_kind::image);
    kinds.front() = kinds.back() = token_kind::text;
    for (int turn = 0; turn < 2; ++turn) {
      state.begin_prompt(seq.next_position, kinds);
      matrix<B> x(be, std::ssize(ids), config.hidden_size);
      model.embed(be, x.view(), ids);
      if (is_sparse) {
        add(model.prefill(be, seq, x.view(), 4, core_matching<B>::prefill_hook(state)));
        for (const std::int32_t id : {5, 6, 8})
          add(model.decode(be, seq, id, core_matching<B>::decode_hook(state)));
      } else {
        add(model.prefill(be, seq, x.view(), 4));
        for (const std::int32_t id : {5, 6, 8}) add(model.decode(be, seq, id));
      }
    }
    return all;
  }
};

TEST_F(memory_limit, serves_neurons_that_each_token_chooses) {
  const auto answer = [&](const llama<B>& model, const auto& hook) {
    auto seq = model.start(be, 20);
    const std::vector<std::int32_t> ids{3, 1, 60};
    matrix<B> x(be, std::ssize(ids), config.hidden_size);
    model.embed(be, x.view(), ids);
    std::vector<float> all = model.prefill(be, seq, x.view(), 4);
    for (const std::int32_t id : {5, 6, 8})
      for (const float logit : model.decode(be, seq, id, hook)) all.push_back(logit);
    return all;
  };
  const neuron_shares shares{.beta = 0.4, .begin = 1};
  const auto expect_alike = [&](const auto& hook) {
    EXPECT_EQ(answer(limited(least()), hook), answer(whole(), hook));
  };
  gate_neurons<B> gates(be, shares, config.layers, shape_of(config));
  expect_alike(gate_neurons<B>::decode_hook(gates));
  if (has_planes(type)) expect_alike(predicted_neurons<B>(shares, config.layers, shape_of(config)));
}

TEST_F(memory_limit, changes_no_logit) {
  const std::vector<bool> ties = support::is_emulated ? std::vector{false} : std::vector{false, true};
  // One buffer and nothing kept; two buffers; some layers kept; all of them.
  const std::vector<std::uint64_t> half_layers = support::is_emulated
                                                     ? std::vector<std::uint64_t>{0, 3}
                                                     : std::vector<std::uint64_t>{0, 1, 2, 3, 5, 8, 14};
  for (const bool tied : ties) {
    config.tie_word_embeddings = tied;
    std::filesystem::remove(path);
    const llama<B> unlimited = whole();
    const std::uint64_t first = least();
    for (const bool is_sparse : {false, true}) {
      const std::vector<float> expected = conversation(unlimited, is_sparse);
      for (const std::uint64_t more : half_layers) {
        const std::uint64_t bytes = first + more * layer_bytes() / 2;
        const llama<B> model = limited(bytes);
        EXPECT_EQ(conversation(model, is_sparse), expected) << bytes << " bytes";
        EXPECT_LE(model.held_weight_bytes(), bytes);
      }
    }
  }
}

TEST_F(memory_limit, counts_and_carries_the_norms_of_heads) {
  const std::uint64_t without = layer_bytes();
  config.qk_norm = true;
  std::filesystem::remove(path);
  EXPECT_EQ(layer_bytes(), without + 2 * 16 * sizeof(float)) << "one of queries and one of keys";
  const std::vector<float> expected = conversation(whole(), true);
  for (const std::uint64_t layers : {0, 7}) {
    const std::uint64_t bytes = least() + layers * layer_bytes();
    const llama<B> model = limited(bytes);
    EXPECT_EQ(conversation(model, true), expected) << bytes << " bytes";
    EXPECT_LE(model.held_weight_bytes(), bytes);
  }
}

TEST_F(memory_limit, reads_nothing_but_the_embedding_once_all_core_neurons_are_kept) {
  // Six layers with two fifths of their neurons, and one buffer.
  const llama<B> model = limited(least() + 4 * layer_bytes());
  auto seq = model.start(be, 20);
  core_matching<B> state(be, sparse(), config.layers, shape_of(config));
  state.begin_prompt(0, std::vector<token_kind>(4, token_kind::text));
  matrix<B> x(be, 4, config.hidden_size);
  model.embed(be, x.view(), std::vector<std::int32_t>{1, 2, 3, 4});
  model.prefill(be, seq, x.view(), 4, core_matching<B>::prefill_hook(state));
  const std::uint64_t before = model.streamed_weight_bytes();
  for (int step = 0; step < 3; ++step) model.decode(be, seq, 5, core_matching<B>::decode_hook(state));
  EXPECT_EQ(model.streamed_weight_bytes() - before, 3 * bytes_of(type, 64));
}

TEST_F(memory_limit, shows_hooks_the_neurons_that_are_computed) {
  const auto recorded = [&](const llama<B>& model) {
    auto seq = model.start(be, 20);
    core_matching<B> state(be, sparse(), config.layers, shape_of(config));
    state.begin_prompt(0, std::vector<token_kind>(4, token_kind::text));
    matrix<B> x(be, 4, config.hidden_size);
    model.embed(be, x.view(), std::vector<std::int32_t>{1, 2, 3, 4});
    model.prefill(be, seq, x.view(), 4, core_matching<B>::prefill_hook(state));
    layer_recording recording;
    model.decode(be, seq, 5, chain(core_matching<B>::decode_hook(state), record_hook<B>(recording)));
    return recording;
  };
  layer_recording of_whole = recorded(whole());
  layer_recording of_subsets = recorded(limited(least() + 4 * layer_bytes()));
  for (index i = 0; i < config.layers; ++i) {
    EXPECT_LT(of_subsets.activations[i].cols, config.intermediate_size);
    EXPECT_EQ(of_subsets.activations[i].values, of_whole.activations[i].values);
  }
}

TEST_F(memory_limit, reads_every_layer_for_every_token_where_only_one_fits) {
  const llama<B> model = limited(least());
  auto seq = model.start(be, 20);
  matrix<B> x(be, 1, config.hidden_size);
  model.embed(be, x.view(), std::vector<std::int32_t>{1});
  model.prefill(be, seq, x.view(), 1);
  const std::uint64_t before = model.streamed_weight_bytes();
  model.decode(be, seq, 5);
  EXPECT_EQ(model.streamed_weight_bytes() - before, 6 * layer_bytes() + bytes_of(type, 64));
}

TEST_F(memory_limit, gives_the_share_of_a_sequence_back_with_it) {
  const llama<B> model = limited(least() + 4 * layer_bytes());
  const std::vector<float> first = conversation(model, true);
  EXPECT_EQ(conversation(model, true), first);
}

TEST_F(memory_limit, says_how_much_is_needed_where_it_is_too_small) {
  const std::uint64_t needed = least();
  expect_parts(error_text([&] { limited(needed - 1); }), std::to_string(needed - 1), std::to_string(needed),
               "too small");
  EXPECT_NO_THROW(limited(needed));
}

TEST_F(memory_limit, refuses_a_file_that_is_truncated_while_it_is_read) {
  for (const std::uint64_t more : {std::uint64_t{0}, 2 * layer_bytes()}) {
    std::filesystem::remove(path);
    const llama<B> model = limited(least() + more);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    expect_parts(error_text([&] { conversation(model, false); }), path.string(), "ends at byte", "truncated");
  }
}

}  // namespace
}  // namespace corematching

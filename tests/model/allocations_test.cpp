// SPDX-License-Identifier: Apache-2.0
// How often decoding asks for memory.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/counted_allocations.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;

/// Rows that the block formats can store.
llama_config small_config() {
  llama_config config = support::tiny_config();
  config.hidden_size = 32;
  config.head_dim = 8;
  config.max_positions = 400;
  config.qk_norm = true;
  return config;
}

class allocations_of_decoding : public ::testing::TestWithParam<std::pair<dtype, dtype>> {
 protected:
  llama_config config = small_config();
  B be = support::make_backend(2);

  // Another backend loads, so that what conversion left is not there for decoding.
  llama<B> load() {
    B loading = support::make_backend(1);
    const io::checkpoint files = support::unlinked_checkpoint(support::random_tensors(config, 1));
    weight_reader<B> reader(loading, files, {}, GetParam().first);
    return {loading, config, reader};
  }
  matrix<B> prompt(const llama<B>& model, index tokens) {
    matrix<B> x(be, tokens, config.hidden_size);
    model.embed(be, x.view(), support::random_ids(tokens, config.vocab_size, 2));
    return x;
  }
  /// Allocations while `steps` tokens are decoded.
  template <class H>
  std::int64_t count(const llama<B>& model, sequence<B>& seq, index steps, H&& hook) {
    const std::int64_t before = support::allocations();
    for (index i = 0; i < steps; ++i) model.decode(be, seq, static_cast<std::int32_t>(i % 7), hook);
    return support::allocations() - before;
  }
};

TEST_P(allocations_of_decoding, are_the_logits_and_what_the_cache_grows_by) {
  const llama<B> model = load();
  constexpr index tokens = 9, headroom = 120, steps = 100;
  for (const bool sparse : {false, true}) {
    matrix<B> x = prompt(model, tokens);
    sequence<B> seq = model.start(be, headroom, GetParam().second);
    core_matching_config options;
    options.sparse_tokens = false;
    core_matching<B> state(be, options, config.layers, shape_of(config));
    state.begin_prompt(0, std::vector(tokens, token_kind::text));
    model.prefill(be, seq, x.view(), tokens, core_matching<B>::prefill_hook(state));
    const auto decode = [&](index times) {
      return sparse ? count(model, seq, times, core_matching<B>::decode_hook(state))
                    : count(model, seq, times, no_hook{});
    };
    decode(3);
    // One vector of logits for each token. Attention's scratch, one number for each token that is seen, grows
    // by a quarter at a time: from the 32 numbers of other uses on fewer than ten times on each thread.
    const std::int64_t steady = decode(steps);
    EXPECT_GE(steady, steps);
    EXPECT_LT(steady, steps + 10 * be.describe().threads);
    // Beyond the headroom keys and values of every layer move once.
    const std::int64_t grown = decode(headroom - steps);
    EXPECT_GE(grown, headroom - steps + 2 * config.layers);
    EXPECT_LT(grown, headroom - steps + 2 * config.layers + 10 * be.describe().threads);
    EXPECT_LE(seq.cache[0].capacity_bytes(),
              2 * static_cast<std::size_t>(stored_bytes(GetParam().second, tokens + 1 + 2 * headroom,
                                                        config.kv_heads * config.head_dim)));
  }
}

INSTANTIATE_TEST_SUITE_P(weights_and_caches, allocations_of_decoding,
                         ::testing::Values(std::pair(dtype::f32, dtype::f32),
                                           std::pair(dtype::f16, dtype::f16),
                                           std::pair(dtype::bf16, dtype::bf16),
                                           std::pair(dtype::q8_0, dtype::f16),
                                           std::pair(dtype::q4_0, dtype::f16)),
                         [](const auto& test) { return name_of(test.param.first); });

}  // namespace
}  // namespace corematching

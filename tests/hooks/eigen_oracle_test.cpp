// SPDX-License-Identifier: Apache-2.0
// The backend that is tested against Eigen's, which has none of its kernels: one model and one prompt on
// both, with all that CoreMatching chooses on the way.
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "corematching/backend/linked/eigen.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/weights.hpp"
#include "hooks/recorded_run.hpp"
#include "support/conversation.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

/// What a backend makes of the question and of three tokens behind it.
struct oracle_outcome {
  std::vector<std::vector<std::int32_t>> core_neurons;  // of each layer
  std::vector<std::vector<std::int32_t>> kept;          // positions, of each match
  std::vector<float> logits;                            // of all steps
  work_counters work;
};

template <backend B>
oracle_outcome outcome_on(B be, const llama_config& config, const io::checkpoint& files,
                          const core_matching_config& sparsity) {
  weight_reader<B> reader(be, files);
  llama<B> model(be, config, reader);
  const std::vector<std::int32_t> ids = support::random_ids(test::question_size, config.vocab_size, 1);
  matrix<B> x(be, std::ssize(ids), config.hidden_size);
  model.embed(be, x.view(), ids);
  core_matching<B> state(be, sparsity, config.layers, shape_of(config));
  state.begin_prompt(0, support::kinds_of(test::question));
  auto sequence = model.start(be, 8);

  const work_counters before = be.counters();
  oracle_outcome made;
  made.logits = with_prefill_hook(
      state, [&](auto hook) { return model.prefill(be, sequence, x.view(), x.rows(), std::move(hook)); });
  for (const std::int32_t id : {5, 17, 3}) {
    const auto next = model.decode(be, sequence, id, typename core_matching<B>::decode_hook(state));
    made.logits.insert(made.logits.end(), next.begin(), next.end());
  }
  made.work = be.counters() - before;
  for (index layer = 0; layer < config.layers; ++layer)
    made.core_neurons.push_back(support::downloaded(be, state.core_neurons(layer)));
  for (const token_match& match : state.matches()) made.kept.push_back(match.kept_positions);
  return made;
}

void expect_the_same(const core_matching_config& sparsity) {
  const llama_config config = support::tiny_config();
  const io::checkpoint files = support::unlinked_checkpoint(support::random_tensors(config, 1));
  const oracle_outcome tested = outcome_on(support::make_backend(2), config, files, sparsity);
  const oracle_outcome by_eigen = outcome_on(eigen::make_linked_backend(1), config, files, sparsity);
  EXPECT_EQ(tested.core_neurons, by_eigen.core_neurons);
  EXPECT_EQ(tested.kept, by_eigen.kept);
  EXPECT_EQ(tested.work, by_eigen.work);
  // Both are as far from the exact ones as binary32 takes them.
  support::expect_logits(tested.logits, {by_eigen.logits.begin(), by_eigen.logits.end()},
                         2 * support::logit_error(config));
}

TEST(eigen_oracle, chooses_counts_and_computes_the_same_without_sparsity) {
  expect_the_same({.sparse_neurons = false, .sparse_tokens = false});
}

TEST(eigen_oracle, chooses_counts_and_computes_the_same_with_core_neurons_and_core_tokens) {
  expect_the_same({.match_layers = {1}});
  expect_the_same({.match_layers = {0, 2}, .keep = {.rule = select::keep_rule::top_k, .count = 5}});
}

TEST(eigen_oracle, chooses_the_same_tokens_by_rarity_and_by_contrast) {
  expect_the_same({.match_layers = {1}, .criterion = token_criterion::rarity});
  for (const reference_set with : {reference_set::anchor, reference_set::text})
    expect_the_same({.match_layers = {0, 2}, .criterion = token_criterion::contrast, .reference = with});
}

TEST(eigen_oracle, chooses_the_same_tokens_by_attention) {
  expect_the_same({.match_layers = {1},
                   .criterion = token_criterion::attention,
                   .keep = {.rule = select::keep_rule::top_k, .count = 5}});
}

}  // namespace
}  // namespace corematching

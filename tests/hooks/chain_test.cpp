// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/chain.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "support/conversation.hpp"

namespace corematching {
namespace {

using tiny = support::tiny_llama<support::test_backend>;
using state_of_run = core_matching<support::test_backend>;

TEST(chain, tells_the_first_hook_first) {
  tiny model;
  std::vector<int> calls;
  const auto one = progress_hook([&](index) { calls.push_back(1); });
  const auto two = progress_hook([&](index) { calls.push_back(2); });
  chain both(one, two);
  auto sequence = model.model.start(model.be, 0);
  auto x = support::embedded(model, {1, 2});
  model.model.prefill(model.be, sequence, x.view(), 1000, both);
  EXPECT_EQ(calls, (std::vector<int>{1, 2, 1, 2, 1, 2, 1, 2}));
}

TEST(chain, attends_what_either_attends_and_the_one_that_is_asked_answers) {
  using prefill = state_of_run::prefill_hook;
  using recorder = record_hook<support::test_backend>;
  using either = chain<recorder, prefill>;
  static_assert(attends<either, site::ffn_activation> && attends<either, site::keep_tokens>);
  static_assert(attends<either, site::layer_output> && !attends<either, site::ffn_neurons>);
  tiny model;
  for (const bool recorder_first : {true, false}) {
    state_of_run state(model.be,
                       {.match_layers = {1}, .keep = {.rule = select::keep_rule::top_k, .count = 5}},
                       model.config.layers, shape_of(model.config));
    const auto kinds = support::kinds_of("tttiiiiiiiiiiiittttttt");
    state.begin_prompt(0, kinds);
    layer_recording recording;
    auto sequence = model.model.start(model.be, 0);
    auto x = support::embedded(model, support::random_ids(22, model.config.vocab_size, 1));
    if (recorder_first) {
      model.model.prefill(model.be, sequence, x.view(), 1000, chain(recorder(recording), prefill(state)));
    } else {
      model.model.prefill(model.be, sequence, x.view(), 1000, chain(prefill(state), recorder(recording)));
    }
    EXPECT_EQ(recording.outputs.at(1).rows, 22) << "outputs are told before anything is dropped";
    EXPECT_EQ(recording.outputs.at(2).rows, 22 - 12 + 5);
  }
}

}  // namespace
}  // namespace corematching

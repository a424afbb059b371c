// SPDX-License-Identifier: Apache-2.0
// Sequences that take steps together, against the same sequences alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "corematching/model/llama/batch.hpp"
#include "support/error_text.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using tiny = support::tiny_llama<B>;
using support::error_text;
using support::expect_parts;
using support::random_ids;

/// Whether several rows get the bits of a row alone: where the CPU's kernels compute, a few of them.
bool has_equal_bits(index rows) {
#if defined(COREMATCHING_TEST_DEVICE)
  return rows == 1;
#else
  return rows == 1 || (rows <= support::few_tokens && !support::instruction_set().empty());
#endif
}

/// Bound of what rounding makes of a logit in other kernels, for each of the two.
double rounding(const llama_config& config) {
  return 2 * support::logit_error(config);
}

enum class policy { dense, sentence, gate, predicted };

/// A sequence, and the policy by which its neurons are chosen.
struct asked {
  asked(tiny& on, policy by_, unsigned seed, index tokens) : by(by_), seq(on.model.start(on.be, 4)) {
    const auto ids = random_ids(tokens, on.config.vocab_size, seed);
    const std::vector<token_kind> kinds(ids.size(), token_kind::text);
    const decoder_shape shape = shape_of(on.config);
    const index layers = on.config.layers;
    auto x = support::embedded(on, ids);
    const neuron_shares shares{.beta = 0.4};
    if (by == policy::sentence) {
      core.emplace(on.be, core_matching_config{.sparse_tokens = false}, layers, shape);
      core->begin_prompt(0, kinds);
      logits = on.model.prefill(on.be, seq, x.view(), tokens, core_matching<B>::prefill_hook(*core));
    } else if (by == policy::gate) {
      gate.emplace(on.be, shares, layers, shape);
      gate->begin_prompt(0, kinds);
      logits = on.model.prefill(on.be, seq, x.view(), tokens, gate_neurons<B>::prefill_hook(*gate));
    } else {
      if (by == policy::predicted) foretold.emplace(shares, layers, shape);
      logits = on.model.prefill(on.be, seq, x.view(), tokens);
    }
  }

  template <class Body>
  decltype(auto) with_hook(Body&& body) {
    if (by == policy::sentence) return body(core_matching<B>::decode_hook(*core));
    if (by == policy::gate) return body(gate_neurons<B>::decode_hook(*gate));
    if (by == policy::predicted) return body(predicted_neurons<B>(*foretold));
    return body(no_hook{});
  }
  std::vector<float> step(tiny& on, std::int32_t id) {
    return with_hook([&](auto hook) { return on.model.decode(on.be, seq, id, hook); });
  }
  batch_member<B> member(tiny& on, std::int32_t id) {
    return {&seq, id, with_hook([&](auto hook) { return wants_of(on.be, seq, hook); })};
  }

  policy by;
  sequence<B> seq;
  std::vector<float> logits;
  std::optional<core_matching<B>> core;
  std::optional<gate_neurons<B>> gate;
  std::optional<predicted_neurons<B>> foretold;
};

std::vector<float> row_of(tiny& on, matrix_view<float, B::space> logits, index i) {
  std::vector<float> values;
  download_values<B>(on.be, logits.middle_rows(i, 1), values);
  return values;
}

std::int32_t likeliest(const std::vector<float>& logits) {
  return corematching::argmax({logits.data(), std::ssize(logits)}).place;
}

void expect_alike(const std::vector<float>& together, const std::vector<float>& alone, index rows,
                  const llama_config& config) {
  if (has_equal_bits(rows)) {
    ASSERT_EQ(together, alone);
    return;
  }
  ASSERT_EQ(together.size(), alone.size());
  for (std::size_t i = 0; i < alone.size(); ++i) ASSERT_NEAR(together[i], alone[i], rounding(config));
}

struct company {
  std::string name;
  std::vector<policy> members;
  std::optional<dtype> weights = {};

  friend void PrintTo(const company& of, std::ostream* out) { *out << of.name; }
};

class steps_together : public testing::TestWithParam<company> {};
INSTANTIATE_TEST_SUITE_P(
    of, steps_together,
    testing::Values(company{"one", {policy::dense}}, company{"two_dense", {policy::dense, policy::dense}},
                    company{"three_sentences", std::vector(3, policy::sentence)},
                    company{"four_gates", std::vector(4, policy::gate)},
                    company{"three_predicted", std::vector(3, policy::predicted), dtype::f16_planes},
                    company{"mixed",
                            {policy::sentence, policy::dense, policy::gate, policy::predicted},
                            dtype::f16_planes},
                    company{"eight_dense", std::vector(8, policy::dense)},
                    company{"eight_sentences", std::vector(8, policy::sentence)},
                    company{"eight_gates", std::vector(8, policy::gate)},
                    company{"six_predicted", std::vector(6, policy::predicted), dtype::f16_planes},
                    company{"seven_dense", std::vector(7, policy::dense)},
                    company{"more_dense", std::vector(support::few_tokens + 1, policy::dense)},
                    company{"more_sentences", std::vector(support::few_tokens + 1, policy::sentence)},
                    company{"more_gates", std::vector(support::few_tokens + 1, policy::gate)}),
    [](const auto& of) { return of.param.name; });

TEST_P(steps_together, give_each_sequence_the_logits_that_it_gets_alone) {
  const auto& [name, policies, weights] = GetParam();
  tiny on(support::tiny_config(), 1, weights);
  std::deque<asked> alone, together;
  std::vector<std::int32_t> next;
  for (std::size_t i = 0; i < policies.size(); ++i) {
    const auto seed = static_cast<unsigned>(i);
    alone.emplace_back(on, policies[i], seed, 5 + static_cast<index>(i));
    together.emplace_back(on, policies[i], seed, 5 + static_cast<index>(i));
    next.push_back(likeliest(alone.back().logits));
  }
  batch_memory<B> memory = on.model.make_batch(on.be, std::ssize(policies));
  for (int step = 0; step < 4; ++step) {
    std::vector<batch_member<B>> members;
    for (std::size_t i = 0; i < policies.size(); ++i) members.push_back(together[i].member(on, next[i]));
    const auto logits = on.model.step_together(on.be, memory, members);
    for (std::size_t i = 0; i < policies.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "step " << step << " of sequence " << i);
      const std::vector<float> expected = alone[i].step(on, next[i]);
      expect_alike(row_of(on, logits, static_cast<index>(i)), expected, std::ssize(policies), on.config);
      EXPECT_EQ(together[i].seq.next_position, alone[i].seq.next_position);
      next[i] = likeliest(expected);
    }
    if (HasFatalFailure()) return;
  }
}

TEST(step_together, takes_sequences_that_join_and_lets_others_leave) {
  tiny on;
  std::deque<asked> alone, together;
  for (unsigned seed = 0; seed < 3; ++seed) {
    alone.emplace_back(on, policy::sentence, seed, 6);
    together.emplace_back(on, policy::sentence, seed, 6);
  }
  batch_memory<B> memory = on.model.make_batch(on.be, 3);
  for (const std::vector<std::size_t>& running :
       {std::vector<std::size_t>{0}, {0, 1}, {1, 0, 2}, {2, 0}, {2}, {1, 2}}) {
    std::vector<batch_member<B>> members;
    for (const std::size_t i : running) members.push_back(together[i].member(on, 7));
    const auto logits = on.model.step_together(on.be, memory, members);
    for (std::size_t row = 0; row < running.size(); ++row)
      expect_alike(row_of(on, logits, static_cast<index>(row)), alone[running[row]].step(on, 7), 3,
                   on.config);
  }
}

TEST(step_together, reads_once_what_all_want) {
  tiny on;
  const auto bytes_of_a_step = [&](index count) {
    std::deque<asked> together;
    std::vector<batch_member<B>> members;
    for (index i = 0; i < count; ++i) together.emplace_back(on, policy::dense, 1, 4);
    for (asked& each : together) members.push_back(each.member(on, 7));
    batch_memory<B> memory = on.model.make_batch(on.be, count);
    const work_counters before = on.be.counters();
    static_cast<void>(on.model.step_together(on.be, memory, members));
    return (work_counters(on.be.counters()) - before).weight_bytes;
  };
  EXPECT_EQ(bytes_of_a_step(3), bytes_of_a_step(1));
}

TEST(step_together, refuses_what_cannot_run_and_leaves_all_sequences_as_they_were) {
  llama_config config = support::tiny_config();
  config.max_positions = 8;
  tiny on(config);
  asked full(on, policy::dense, 1, 8), other(on, policy::dense, 2, 4), same(on, policy::dense, 2, 4);
  batch_memory<B> memory = on.model.make_batch(on.be, 2);
  const auto run = [&](std::vector<batch_member<B>> members) {
    return error_text([&] { static_cast<void>(on.model.step_together(on.be, memory, members)); });
  };
  expect_parts(run({}), "0 sequences");
  expect_parts(run({other.member(on, 1), other.member(on, 1), other.member(on, 1)}), "3 sequences", "2");
  expect_parts(run({other.member(on, 1), full.member(on, 1)}), "context of 8");
  expect_parts(run({other.member(on, 61)}), "61");
  // A set for a neuron that is not there would be no refusal; a choice of too many is one, in the midst.
  batch_member<B> greedy = other.member(on, 1);
  greedy.wants.assign(4, {});
  greedy.wants[2].choice = neuron_choice<B::space>{config.intermediate_size + 1, {}};
  expect_parts(run({same.member(on, 1), greedy}), "cannot be chosen");
  EXPECT_EQ(same.seq.cache[0].length(), 4);
  EXPECT_EQ(other.seq.cache[1].length(), 4);
  EXPECT_EQ(other.step(on, 5), same.step(on, 5));
}

TEST(prompt_pass, gives_the_bits_of_a_prefill_in_one_whatever_runs_between) {
  tiny on;
  const std::vector<std::int32_t> ids = random_ids(9, on.config.vocab_size, 3);
  const std::vector<token_kind> kinds(ids.size(), token_kind::text);
  asked whole(on, policy::sentence, 3, 9), other(on, policy::dense, 4, 5);
  for (const index layers : {1, 3, 4, 9}) {
    sequence<B> seq = on.model.start(on.be, 4);
    core_matching<B> core(on.be, {.sparse_tokens = false}, on.config.layers, shape_of(on.config));
    core.begin_prompt(0, kinds);
    auto x = support::embedded(on, ids);
    std::vector<std::int32_t> places(ids.size());
    std::iota(places.begin(), places.end(), 0);
    prompt_pass<B> pass(on.be, on.model, seq, x.view(), {{places.data(), 9}, 9}, 9);
    index calls = 0;
    while (!pass.advance(on.be, layers, core_matching<B>::prefill_hook(core))) {
      ++calls;
      EXPECT_EQ(pass.layers_done(), std::min(calls * layers, on.config.layers));
      static_cast<void>(other.step(on, 2));
    }
    EXPECT_TRUE(pass.complete());
    EXPECT_EQ(calls, (on.config.layers - 1) / layers);
    EXPECT_EQ(row_of(on, seq.logits.view(), 0), whole.logits);
    EXPECT_EQ(on.model.decode(on.be, seq, 7, core_matching<B>::decode_hook(core)),
              asked(on, policy::sentence, 3, 9).step(on, 7));
  }
}

}  // namespace
}  // namespace corematching

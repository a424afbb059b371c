// SPDX-License-Identifier: Apache-2.0
// The parts of `llava measure` one by one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "corematching/backend/linked/backend.hpp"
#include "corematching/nn/hook.hpp"
#include "llava/measure/items.hpp"
#include "llava/measure/options.hpp"
#include "llava/measure/prediction.hpp"
#include "llava/measure/tally.hpp"
#include "llava/sparse_hooks.hpp"
#include "support/error_text.hpp"

namespace corematching::driver {
namespace {

using arguments = std::vector<std::string>;
using support::error_text;
using support::expect_parts;

TEST(prediction, is_the_softmax_of_its_logits) {
  const std::vector<float> logits{1, 3, -2, 3}, other{0, 0, 0, std::log(2.0f)};
  const double sum = std::exp(1.0) + 2 * std::exp(3.0) + std::exp(-2.0);
  const prediction p(logits), q(other);
  EXPECT_EQ(p.likeliest(), 1) << "the first of equals";
  double divergence = 0;
  for (std::int32_t i = 0; i < 4; ++i) {
    const double x = logits[static_cast<std::size_t>(i)];
    EXPECT_NEAR(p.surprise(i), std::log(sum) - x, 1e-12);
    const double share = std::exp(x) / sum, others = (i == 3 ? 2 : 1) / 5.0;
    divergence += share * std::log(share / others);
  }
  EXPECT_NEAR(p.divergence_to(q), divergence, 1e-7);
  EXPECT_EQ(p.divergence_to(prediction(logits)), 0);
  EXPECT_GT(q.divergence_to(p), 0);
}

TEST(prediction, stands_logits_of_any_size_and_refuses_others) {
  const std::vector<float> large{1000, 0, -1000};
  EXPECT_EQ(prediction(large).surprise(0), 0);
  EXPECT_EQ(prediction(large).surprise(2), 2000);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> broken{1, bad, 2};
    expect_parts(error_text([&] { prediction{broken}; }), "not finite");
  }
}

TEST(tally, compares_perplexities_of_any_size) {
  const tally dense{.tokens = 2, .surprise = 4000}, other{.tokens = 4, .surprise = 8000 + 4 * std::log(1.5)};
  EXPECT_TRUE(std::isinf(dense.perplexity()));
  EXPECT_NEAR(other.perplexity_to(dense), 1.5, 1e-12);
  EXPECT_EQ(dense.perplexity_to(dense), 1);
}

std::vector<std::int32_t> counting(std::size_t count) {
  std::vector<std::int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(text_chunks, begin_with_the_prefix_and_leave_nothing_out_but_the_end) {
  const std::vector<std::int32_t> prefix{77};
  const auto items = text_chunks(counting(17), prefix, {.tokens = 6, .prompt_tokens = 2});
  ASSERT_EQ(items.size(), 3u);
  for (std::int32_t i = 0; i < 3; ++i) {
    const auto& item = items[static_cast<std::size_t>(i)];
    EXPECT_EQ(item.prompt.ids, (std::vector<std::int32_t>{77, 5 * i}));
    EXPECT_EQ(item.prompt.kinds, std::vector<token_kind>(2, token_kind::text));
    EXPECT_EQ(item.scored, (std::vector<std::int32_t>{5 * i + 1, 5 * i + 2, 5 * i + 3, 5 * i + 4}));
  }
}

TEST(text_chunks, are_spread_evenly_where_there_are_too_many) {
  const auto items = text_chunks(counting(100), {}, {.tokens = 10, .prompt_tokens = 4, .most_tokens = 20});
  ASSERT_EQ(items.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(items[i].prompt.ids.front(), (std::vector<std::int32_t>{0, 30, 60}[i]));
}

TEST(text_chunks, refuse_what_scores_nothing) {
  const auto refusal = [](std::size_t ids, const std::vector<std::int32_t>& prefix, const chunking& how) {
    return error_text([&] { text_chunks(counting(ids), prefix, how); });
  };
  expect_parts(refusal(9, {}, {.tokens = 10, .prompt_tokens = 5}), "9 tokens", "10 of one chunk");
  expect_parts(refusal(99, {}, {.tokens = 10, .prompt_tokens = 10}), "nothing to score");
  expect_parts(refusal(99, {1, 2}, {.tokens = 10, .prompt_tokens = 1}), "2 begin every text");
  expect_parts(refusal(99, {}, {.tokens = 10, .prompt_tokens = 5, .most_tokens = 4}), "scores 5", "4");
}

// Whatever the policy, so that steps of decoding are launched as graphs on a device.
TEST(sparse_hooks, can_be_captured) {
  using state = sparse_state<linked_backend<device_space>>;
  EXPECT_TRUE(capturable_hook<state::decode_hook>);
}

measure_options parse_measure(const arguments& more) {
  std::vector<const char*> argv{"measure", "--model", "m"};
  for (const std::string& argument : more) argv.push_back(argument.c_str());
  return parse_measure_options(static_cast<int>(argv.size()), argv.data());
}

TEST(measure_options, read_configurations_as_the_driver_reads_its_options) {
  const auto o =
      parse_measure({"--questions", "q", "--device", "eigen", "--config", "paper: --sparsity both --beta 0.3",
                     "--config", " two words : --sparsity tokens --keep top_k:7 --criterion random"});
  ASSERT_EQ(o.configurations.size(), 2u);
  EXPECT_EQ(o.configurations[0].name, "paper");
  EXPECT_EQ(o.configurations[0].text, "--sparsity both --beta 0.3");
  EXPECT_EQ(o.configurations[0].how.sparsity.beta, 0.3);
  EXPECT_EQ(o.configurations[0].how.device.what, device_choice::kind::eigen);
  EXPECT_EQ(o.configurations[1].name, "two words");
  EXPECT_EQ(o.configurations[1].how.sparsity.keep.count, 7);
  EXPECT_FALSE(o.configurations[1].how.sparsity.sparse_neurons);
}

TEST(measure_options, refuse_configurations_by_name) {
  const auto refusal = [](const arguments& configurations) {
    arguments all{"--text", "t"};
    for (const std::string& one : configurations) all.insert(all.end(), {"--config", one});
    return error_text([&] { parse_measure(all); });
  };
  expect_parts(refusal({"--sparsity both --keep top_k:3"}), "--config", "NAME: OPTIONS");
  expect_parts(refusal({"paper"}), "\"paper\"", "NAME: OPTIONS");
  expect_parts(refusal({"a: --sparsity neurons", "a: --sparsity both"}), "\"a\" is taken");
  expect_parts(refusal({"dense: --sparsity neurons"}), "\"dense\" is taken");
  expect_parts(refusal({"a: "}), "--config \"a\": ", "nothing is left out");
  expect_parts(refusal({"a: --beta 0.3"}), "--config \"a\": --beta: is not read");
  expect_parts(refusal({"a: --sparsity some"}), "--config \"a\": ", "\"some\"");
  expect_parts(refusal({"a: --sparsity both --prompt x"}), "--config \"a\": ", "--prompt");
  expect_parts(refusal({"a: --sparsity both --keep ratio:0.5"}), "--config \"a\": --keep: is not read");
  expect_parts(refusal({"a: --sparsity neurons --neurons predicted"}),
               "--config \"a\": --neurons: predicted");
  expect_parts(refusal({"a: --sparsity neurons --beta 0.1,0.2"}), "--config \"a\": --beta: ", "there are 2");
}

TEST(measure_options, read_what_drops_tokens_before_the_decoder) {
  const auto of = [](const std::string& options) {
    return parse_measure({"--questions", "q", "--config", "a: " + options});
  };
  const auto o = of("--thin duplication --thin-keep top_k:25");
  const options& how = o.configurations.at(0).how;
  ASSERT_TRUE(how.thin);
  EXPECT_EQ(how.thin->keep.count, 25);
  EXPECT_FALSE(how.sparsity.sparse_neurons || how.sparsity.sparse_tokens);
  const auto refusal = [&](const std::string& options) { return error_text([&] { of(options); }); };
  expect_parts(refusal("--thin duplication"), "--config \"a\": --thin: needs --thin-keep");
  expect_parts(refusal("--thin random --thin-keep strict"), "--config \"a\": --thin-keep: ", "max_distance");
  expect_parts(refusal("--thin-keep top_k:25"), "--config \"a\": --thin-keep: is not read without --thin");
  expect_parts(error_text([] {
                 parse_measure({"--text", "t", "--config", "a: --thin random --thin-keep top_k:25"});
               }),
               "--config \"a\": --thin: is not read");
}

TEST(measure_options, drop_no_tokens_where_each_layer_is_measured_alone) {
  const auto all = with_single_layers(
      parse_measure({"--questions", "q", "--config", "a: --sparsity both --thin random --thin-keep top_k:25"})
          .configurations,
      3);
  ASSERT_EQ(all.size(), 1u + 3u);
  EXPECT_TRUE(all[0].how.thin && all[0].how.sparsity.sparse_tokens);
  for (std::size_t i = 1; i < all.size(); ++i)
    EXPECT_FALSE(all[i].how.thin || all[i].how.sparsity.sparse_tokens);
}

TEST(measure_options, refuse_what_goes_unread) {
  const auto refusal = [](const arguments& more) { return error_text([&] { parse_measure(more); }); };
  expect_parts(refusal({"--text", "t", "--system", "s"}), "--system: is not read with --text");
  expect_parts(refusal({"--questions", "q", "--chunk", "8"}), "--chunk: is not read with --questions");
  expect_parts(refusal({"--text", "t", "--device", "cuda", "--threads", "2"}), "--threads: is not read");
  expect_parts(refusal({"--text", "t", "--chunk", "8", "--prompt-tokens", "8"}), "--prompt-tokens");
  expect_parts(refusal({"--text", "t", "--by-layer", "--config", "a: --sparsity tokens"}),
               "--config \"a\": leaves no neurons out");
}

TEST(measure_options, need_something_to_measure) {
  for (const arguments& without :
       {arguments{}, arguments{"--text", "t", "--questions", "q"}, arguments{"--text", "t", "--by-layer"}}) {
    ::testing::internal::CaptureStderr();
    EXPECT_THROW(parse_measure(without), usage_exit);
    EXPECT_NE(::testing::internal::GetCapturedStderr(), "");
  }
}

}  // namespace
}  // namespace corematching::driver

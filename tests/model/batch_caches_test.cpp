// SPDX-License-Identifier: Apache-2.0
// What several questions share beside the weights: what was computed for one of them before.
#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "corematching/model/batch/admission.hpp"
#include "corematching/model/batch/text_prefixes.hpp"
#include "support/error_text.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using tiny = support::tiny_llama<B>;

TEST(memory_budget, gives_what_it_has) {
  memory_budget budget(10);
  EXPECT_TRUE(budget.can_ever_fit(10) && budget.fits(10));
  EXPECT_FALSE(budget.can_ever_fit(11));
  budget.take(7);
  EXPECT_TRUE(budget.fits(3));
  EXPECT_FALSE(budget.fits(4));
  budget.give_back(7);
  EXPECT_TRUE(budget.fits(10));
}

TEST(memory_budget, counts_what_a_sequence_holds) {
  tiny on;
  for (const dtype type : {dtype::f32, dtype::f16}) {
    auto seq = on.model.start(on.be, 3, type);
    auto x = support::embedded(on, {1, 2, 3, 4, 5});
    static_cast<void>(on.model.prefill(on.be, seq, x.view(), 5));
    EXPECT_EQ(cache_bytes_of(on.config, 5, type), seq.cache.bytes());
    EXPECT_EQ(cache_bytes_of(on.config, 8, type), seq.cache.capacity_bytes());
  }
}

class prefixes : public testing::Test {
 protected:
  tiny on;
  const std::vector<std::int32_t> text = support::random_ids(6, on.config.vocab_size, 4);

  /// Logits of some steps behind the text and two more tokens.
  std::vector<float> logits_behind(sequence<B>& seq) {
    auto x = support::embedded(on, {7, 8});
    std::vector<float> logits = on.model.prefill(on.be, seq, x.view(), 2);
    const std::vector<float> more = on.model.decode(on.be, seq, 9);
    logits.insert(logits.end(), more.begin(), more.end());
    return logits;
  }
};

TEST_F(prefixes, are_read_once_and_give_the_same_bits_either_way) {
  text_prefixes<B> kept(std::uint64_t{1} << 20);
  auto first = on.model.start(on.be, 4), second = on.model.start(on.be, 4), other = on.model.start(on.be, 4),
       plain = on.model.start(on.be, 4);
  EXPECT_FALSE(kept.begin(on.be, on.model, first, text));
  const work_counters before = on.be.counters();
  EXPECT_TRUE(kept.begin(on.be, on.model, second, text));
  EXPECT_EQ(on.be.counters() - before, work_counters());
  EXPECT_FALSE(kept.begin(on.be, on.model, other, std::span(text).first(5)));
  EXPECT_EQ(second.next_position, 6);
  EXPECT_EQ(kept.uses().found, 1u);
  EXPECT_EQ(kept.uses().missed, 2u);
  EXPECT_EQ(kept.bytes(), cache_bytes_of(on.config, 11, dtype::f32));
  auto x = support::embedded(on, text);
  static_cast<void>(on.model.prefill(on.be, plain, x.view(), 6));
  const auto expected = logits_behind(plain);
  EXPECT_EQ(logits_behind(first), expected);
  EXPECT_EQ(logits_behind(second), expected);
}

TEST_F(prefixes, begin_nothing_that_has_begun) {
  text_prefixes<B> kept(std::uint64_t{1} << 20);
  auto seq = on.model.start(on.be, 4);
  static_cast<void>(kept.begin(on.be, on.model, seq, text));
  support::expect_parts(support::error_text([&] { kept.begin(on.be, on.model, seq, text); }), "holds 6");
}

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Attention and the selections of a backend against their formulas.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "select/slow_selectors.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;
namespace slow = select::slow;

const std::vector<attention_shape> shapes = {
    scaled_attention(1, 1, 8, true),  scaled_attention(4, 4, 6, true),  scaled_attention(4, 2, 16, true),
    scaled_attention(6, 1, 10, true), scaled_attention(3, 3, 7, false), scaled_attention(8, 2, 64, false),
    scaled_attention(2, 1, 33, true),
};

template <class B>
class backend_attention : public testing::Test {
 protected:
  std::mt19937 random{11};
};
TYPED_TEST_SUITE(backend_attention, backends);

TYPED_TEST(backend_attention, weighs_values_by_the_softmax_of_the_visible_keys) {
  sampled_cases cases;
  for (const attention_shape& shape : shapes)
    for (const index queries : {1, 2, 4, 5, 6, 37, 70})
      for (const index past : {0, 1, 5, 66}) {
        if (!cases.takes_next(3)) continue;
        SCOPED_TRACE(testing::Message() << queries << " queries behind " << past << ", heads " << shape.heads
                                        << "/" << shape.kv_heads << " of " << shape.head_dim);
        const index keys = queries + past;
        const real_matrix q = random_matrix(queries, shape.query_size(), this->random);
        const real_matrix k = random_matrix(keys, shape.kv_size(), this->random);
        const real_matrix v = random_matrix(keys, shape.kv_size(), this->random);
        const real_matrix expected = twin::attention(q, k, v, shape);
        for_each_configuration<TypeParam>([&](TypeParam& be) {
          const placement where = placements[(queries + past) % 3];
          placed_matrix<TypeParam> y(be, queries, shape.query_size(), where), placed_q(be, q, where),
              placed_k(be, k, where), placed_v(be, v, where);
          be.attention(y.view(), placed_q.in(), placed_k.in(), placed_v.in(), shape);
          expect_near(y.values(), expected, attention_error(shape.head_dim, keys, double{shape.scale}));
        });
        if (this->HasFatalFailure()) return;
      }
}

TYPED_TEST(backend_attention, sees_no_more_keys_than_a_window_shows) {
  for (attention_shape shape : {scaled_attention(4, 2, 16), scaled_attention(6, 1, 10)})
    for (const index window : {1, 20, 48, 1000})
      for (const index queries : {1, 5, 70})
        for (const index past : {0, 66}) {
          SCOPED_TRACE(testing::Message() << queries << " queries behind " << past << ", window of " << window
                                          << ", heads of " << shape.head_dim);
          shape.window = window;
          const index keys = queries + past;
          const real_matrix q = random_matrix(queries, shape.query_size(), this->random);
          const real_matrix k = random_matrix(keys, shape.kv_size(), this->random);
          const real_matrix v = random_matrix(keys, shape.kv_size(), this->random);
          TypeParam be = support::make_backend<TypeParam>(2);
          placed_matrix<TypeParam> y(be, queries, shape.query_size()), placed_q(be, q), placed_k(be, k),
              placed_v(be, v);
          be.attention(y.view(), placed_q.in(), placed_k.in(), placed_v.in(), shape);
          expect_near(y.values(), twin::attention(q, k, v, shape),
                      attention_error(shape.head_dim, keys, double{shape.scale}));
          if (this->HasFatalFailure()) return;
        }
}

TYPED_TEST(backend_attention, reads_keys_and_values_as_they_are_stored) {
  for (const dtype type : {dtype::f16, dtype::bf16})
    for (const attention_shape& shape : shapes)
      for (const index queries : {1, 4, 37}) {
        const index keys = queries + 30;
        SCOPED_TRACE(testing::Message() << name_of(type) << ", " << queries << " queries, heads "
                                        << shape.heads << " of " << shape.head_dim);
        const real_matrix q = random_matrix(queries, shape.query_size(), this->random);
        const real_matrix k = rounded(random_matrix(keys, shape.kv_size(), this->random), type);
        const real_matrix v = rounded(random_matrix(keys, shape.kv_size(), this->random), type);
        const real_matrix expected = twin::attention(q, k, v, shape);
        for_each_configuration<TypeParam>([&](TypeParam& be) {
          placed_matrix<TypeParam> y(be, queries, shape.query_size()), placed_q(be, q);
          const auto stored_k = placed_weight(be, k, type, {1, 3}),
                     stored_v = placed_weight(be, v, type, {1, 3});
          be.attention(y.view(), placed_q.in(), stored_k.view, stored_v.view, shape);
          expect_near(y.values(), expected,
                      attention_error(shape.head_dim, keys, double{shape.scale}) +
                          rounded_attention_error(type, queries));
        });
        if (this->HasFatalFailure()) return;
      }
}

TYPED_TEST(backend_attention, all_see_all_where_nothing_is_causal) {
  const attention_shape shape = scaled_attention(2, 2, 8, false);
  for (const index queries : {2, 9}) {
    const real_matrix q = random_matrix(queries, 16, this->random), k = random_matrix(5, 16, this->random);
    TypeParam be = support::make_backend<TypeParam>(2);
    placed_matrix<TypeParam> y(be, queries, 16), placed_q(be, q), placed_k(be, k);
    be.attention(y.view(), placed_q.in(), placed_k.in(), placed_k.in(), shape);
    expect_near(y.values(), twin::attention(q, k, k, shape), attention_error(8, 5, double{shape.scale}));
  }
}

TYPED_TEST(backend_attention, a_key_that_a_query_must_not_see_does_not_reach_it) {
  const attention_shape shape = scaled_attention(2, 1, 8, true);
  for (const index queries : {3, 70}) {
    const real_matrix q = random_matrix(queries, 16, this->random);
    real_matrix k = random_matrix(queries, 8, this->random);
    TypeParam be = support::make_backend<TypeParam>(2);
    const auto run = [&] {
      placed_matrix<TypeParam> y(be, queries, 16), placed_q(be, q), placed_k(be, k);
      be.attention(y.view(), placed_q.in(), placed_k.in(), placed_k.in(), shape);
      return y.values();
    };
    const real_matrix before = run();
    for (index j = 0; j < 8; ++j) k(queries - 1, j) = 1e30f;
    const real_matrix after = run();
    for (index i = 0; i + 1 < queries; ++i)
      for (index j = 0; j < 16; ++j) ASSERT_EQ(after(i, j), before(i, j)) << "row " << i;
    EXPECT_NE(after(queries - 1, 0), before(queries - 1, 0));
  }
}

TYPED_TEST(backend_attention, large_scores_do_not_overflow) {
  const attention_shape shape = scaled_attention(1, 1, 8, true);
  for (const index queries : {1, 6}) {
    const real_matrix q = random_matrix(queries, 8, this->random, 1e4),
                      v = random_matrix(queries, 8, this->random);
    TypeParam be = support::make_backend<TypeParam>(1);
    placed_matrix<TypeParam> y(be, queries, 8), placed_q(be, q), placed_v(be, v);
    be.attention(y.view(), placed_q.in(), placed_q.in(), placed_v.in(), shape);
    for (const double value : y.values().values) ASSERT_LE(std::fabs(value), 1.0 + 1e-6);
  }
}

TYPED_TEST(backend_attention, probabilities_are_those_of_one_query_and_sum_to_one) {
  for (const attention_shape& shape : shapes)
    for (const index keys : {1, 3, 4, 37, 130}) {
      const real_matrix q = random_matrix(1, shape.query_size(), this->random);
      const real_matrix k = random_matrix(keys, shape.kv_size(), this->random);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> placed_q(be, q, {1, 0}), placed_k(be, k, {1, 3});
        placed_matrix<TypeParam, float> p(be, shape.heads, keys, {1, 2});
        be.attention_probabilities(p.view(), placed_q.in(), placed_k.in(), shape);
        const real_matrix probabilities = p.values();
        const double error = attention_error(shape.head_dim, keys, double{shape.scale});
        for (index head = 0; head < shape.heads; ++head) {
          const auto weights = twin::attention_weights(q, 0, head, k, shape, [](index) { return true; });
          double sum = 0;
          for (index key = 0; key < keys; ++key) {
            ASSERT_NEAR(probabilities(head, key), weights[static_cast<std::size_t>(key)], error);
            sum += probabilities(head, key);
          }
          ASSERT_NEAR(sum, 1, error);
        }
      });
    }
}

TYPED_TEST(backend_attention, counts_the_pairs_that_see_each_other_and_the_cache_once) {
  const attention_shape shape = scaled_attention(4, 2, 8, true);
  TypeParam be = support::make_backend<TypeParam>(2);
  for (const index queries : {1, 6}) {
    placed_matrix<TypeParam> q(be, random_matrix(queries, 32, this->random)), y(be, queries, 32),
        k(be, random_matrix(10, 16, this->random));
    const work_counters before = be.counters();
    be.attention(y.view(), q.in(), k.in(), k.in(), shape);
    std::uint64_t pairs = 0;
    for (index i = 0; i < queries; ++i) pairs += static_cast<std::uint64_t>(10 - queries + i + 1);
    EXPECT_EQ(be.counters() - before, (work_counters{4 * 32 * pairs, 0, 2 * 10 * 16 * sizeof(float)}));
    placed_matrix<TypeParam, float> p(be, 4, 10);
    const work_counters again = be.counters();
    be.attention_probabilities(p.view(), q.in().top_rows(1), k.in(), shape);
    EXPECT_EQ(be.counters(), again) << "looking on is no work of the model";
  }
}

/// Activations of `rows` tokens, some of them all negative, with values that repeat.
struct made_up_rows {
  real_matrix values;
  std::vector<std::vector<float>> rows;

  made_up_rows(index tokens, index neurons, std::mt19937& random) : values(tokens, neurons) {
    for (index i = 0; i < tokens; ++i) {
      std::vector<float> row;
      for (index n = 0; n < neurons; ++n) {
        const auto level = static_cast<double>(random() % 41) / 8 - 3;
        row.push_back(static_cast<float>(values(i, n) = i % 5 == 3 ? -std::fabs(level) : level));
      }
      rows.push_back(row);
    }
  }
};

template <class B>
class backend_selection : public testing::Test {
 protected:
  std::mt19937 random{12};
};
TYPED_TEST_SUITE(backend_selection, backends);

TYPED_TEST(backend_selection, activated_neurons_are_bits_and_counts_of_each_row) {
  for (const index neurons : {1, 63, 64, 65, 200})
    for (const index tokens : {1, 2, 7}) {
      const made_up_rows made(tokens, neurons, this->random);
      const index words = select::words_for(neurons);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> x(be, made.values, {1, 3});
        placed_vector<TypeParam, std::uint64_t> bits(
            be, std::vector<std::uint64_t>(static_cast<std::size_t>(tokens * words), ~0ull));
        placed_vector<TypeParam, std::int32_t> counts(
            be, std::vector<std::int32_t>(static_cast<std::size_t>(tokens), -1));
        be.activated_neurons({bits.view().data, tokens, words, words}, counts.view(), x.in());
        const auto words_of = bits.values();
        for (index i = 0; i < tokens; ++i) {
          const auto expected = slow::activated(made.rows[static_cast<std::size_t>(i)].data(), neurons);
          EXPECT_EQ(select::bits_to_indices(words_of.data() + i * words, words), expected);
          EXPECT_EQ(counts.values()[static_cast<std::size_t>(i)], std::ssize(expected));
        }
      });
    }
}

TYPED_TEST(backend_selection, an_activation_that_is_not_finite_is_an_error_that_names_the_token) {
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    made_up_rows made(6, 70, this->random);
    made.values(4, 66) = bad;
    for_each_configuration<TypeParam>([&](TypeParam& be) {
      placed_matrix<TypeParam> x(be, made.values);
      placed_vector<TypeParam, std::uint64_t> bits(be, std::vector<std::uint64_t>(12));
      placed_vector<TypeParam, std::int32_t> counts(be, std::vector<std::int32_t>(6));
      const auto text = error_text([&] {
        be.activated_neurons({bits.view().data, 6, 2, 2}, counts.view(), x.in());
        counts.values();  // a backend that queues its work says so when it is waited for
      });
      expect_parts(text, "token 4", "neuron 66", std::isnan(bad) ? "NaN" : "infinite");
    });
  }
}

TYPED_TEST(backend_selection, core_neurons_are_counted_over_all_or_the_named_rows_and_added) {
  const index tokens = 11, neurons = 70;
  const made_up_rows made(tokens, neurons, this->random);
  const std::vector<std::int32_t> some = {0, 2, 3, 7, 10};
  for (const core_count rule : {core_count::per_token, core_count::mean_count})
    for (const bool all : {true, false}) {
      std::vector<std::int32_t> every(11);
      std::iota(every.begin(), every.end(), 0);
      const std::vector<std::int32_t>& counted = all ? every : some;
      std::vector<std::int32_t> sizes, expected(70, 100);
      for (const auto& row : made.rows)
        sizes.push_back(static_cast<std::int32_t>(slow::activated(row.data(), 70).size()));
      double total = 0;
      for (const std::int32_t row : counted) total += sizes[static_cast<std::size_t>(row)];
      const double mean = total / static_cast<double>(counted.size());
      for (const std::int32_t row : counted) {
        const double size = rule == core_count::mean_count ? mean : sizes[static_cast<std::size_t>(row)];
        auto k = static_cast<index>(std::floor(0.3 * size));
        if (rule == core_count::per_token && size > 0) k = std::max<index>(k, 1);
        for (const std::int32_t n :
             slow::largest_positive(made.rows[static_cast<std::size_t>(row)].data(), 70, k))
          ++expected[static_cast<std::size_t>(n)];
      }
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> x(be, made.values, {1, 3});
        placed_vector<TypeParam, std::int32_t> counts(be, sizes), rows(be, some),
            f(be, std::vector<std::int32_t>(70, 100));
        std::optional<index_view<typename TypeParam::space>> named;
        if (!all) named = rows.in();
        be.count_core_neurons(f.view(), x.in(), counts.in(), 0.3, rule, named);
        EXPECT_EQ(f.values(), expected);
      });
    }
}

TYPED_TEST(backend_selection, core_neurons_come_as_indices_and_as_the_same_bits) {
  std::vector<std::int32_t> f(130);
  for (auto& count : f) count = static_cast<std::int32_t>(this->random() % 6);
  for (const double beta : {0.01, 0.2, 1.0}) {
    TypeParam be = support::make_backend<TypeParam>(2);
    placed_vector<TypeParam, std::int32_t> frequency(be, f);
    const auto set = be.core_neurons(frequency.in(), beta);
    const auto indices = set.indices();
    std::vector<std::int32_t> host(static_cast<std::size_t>(indices.size));
    be.download(vector_view<std::int32_t>{host.data(), indices.size}, indices);
    EXPECT_EQ(host, slow::core_neurons(f, beta));
    std::vector<std::uint64_t> words(static_cast<std::size_t>(set.bits().size));
    be.download(vector_view<std::uint64_t>{words.data(), set.bits().size}, set.bits());
    EXPECT_EQ(select::bits_to_indices(words.data(), std::ssize(words)), host);
  }
}

TYPED_TEST(backend_selection, overlap_counts_common_members) {
  const index tokens = 5, words = 3;
  std::vector<std::uint64_t> bits, set;
  for (index i = 0; i < tokens * 4; ++i)
    bits.push_back((std::uint64_t{this->random()} << 32) | this->random());
  for (index i = 0; i < words; ++i) set.push_back((std::uint64_t{this->random()} << 32) | this->random());
  TypeParam be = support::make_backend<TypeParam>(2);
  placed_vector<TypeParam, std::uint64_t> placed_bits(be, bits), placed_set(be, set);
  placed_vector<TypeParam, std::int32_t> scores(be, std::vector<std::int32_t>(5, -1));
  be.overlap(scores.view(), {placed_bits.in().data, tokens, words, 4}, placed_set.in());
  for (index i = 0; i < tokens; ++i) {
    std::int32_t common = 0;
    for (index n = 0; n < words * 64; ++n)
      common += select::test_bit(bits.data() + i * 4, n) && select::test_bit(set.data(), n) ? 1 : 0;
    EXPECT_EQ(scores.values()[static_cast<std::size_t>(i)], common);
  }
}

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Attention of the CPU backend where its panels of queries and tiles of keys begin and end.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "corematching/backend/cpu/decode/attention_kernels.hpp"
#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;
// The same for every instruction set, so what this file is compiled for does not matter.
using cpu::detail::attended_elements;
using cpu::detail::attended_keys;
using cpu::detail::panel_queries;

class prefill_attention : public testing::Test {
 protected:
  real_matrix attended(const real_matrix& q, const real_matrix& k, const real_matrix& v,
                       const attention_shape& shape, int threads = 2, dtype type = dtype::f32,
                       placement where = {1, 3}) {
    auto be = make_backend(threads);
    placed_matrix<test_backend> y(be, q.rows, q.cols, where), placed_q(be, q, where);
    const auto stored_k = placed_weight(be, k, type, where), stored_v = placed_weight(be, v, type, where);
    be.attention(y.view(), placed_q.in(), stored_k.view, stored_v.view, shape);
    return y.values();
  }

  std::mt19937 random{21};
};

TEST_F(prefill_attention, is_right_around_the_borders_of_panels_and_tiles) {
  for (const bool causal : {true, false})
    for (const index queries : {panel_queries - 1, panel_queries, panel_queries + 1})
      for (const index border : {attended_keys, 2 * attended_keys})
        for (const index keys : {border - 1, border, border + 1}) {
          SCOPED_TRACE(testing::Message() << queries << " queries, " << keys << " keys, causal " << causal);
          const attention_shape shape = scaled_attention(3, 1, 5, causal);
          const real_matrix q = random_matrix(queries, shape.query_size(), random);
          const real_matrix k = random_matrix(keys, shape.kv_size(), random);
          const real_matrix v = random_matrix(keys, shape.kv_size(), random);
          expect_near(attended(q, k, v, shape), twin::attention(q, k, v, shape),
                      attention_error(shape.head_dim, keys, double{shape.scale}));
        }
}

TEST_F(prefill_attention, takes_heads_of_any_size_in_all_stored_types) {
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16})
    for (const index head_dim : {index{1}, index{2}, index{9}, index{23}, index{80}, attended_elements - 1,
                                 attended_elements, attended_elements + 1, 2 * attended_elements + 9}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", heads of " << head_dim);
      const attention_shape shape = scaled_attention(4, 2, head_dim);
      const index queries = 19, keys = 70;
      const real_matrix q = random_matrix(queries, shape.query_size(), random);
      const real_matrix k = rounded(random_matrix(keys, shape.kv_size(), random), type);
      const real_matrix v = rounded(random_matrix(keys, shape.kv_size(), random), type);
      expect_near(attended(q, k, v, shape, 2, type), twin::attention(q, k, v, shape),
                  attention_error(head_dim, keys, double{shape.scale}));
    }
}

TEST_F(prefill_attention, follows_scores_that_rise_and_fall_over_the_tiles) {
  // One number a head: key j has the score q * slope * j, so that each tile outweighs all before it where q
  // rises and the first one all others where it falls; most scores are beyond what exp takes as they are.
  const attention_shape shape{1, 1, 1, 1.0f, false};
  const index keys = 5 * attended_keys + 7, queries = panel_queries + 2;
  real_matrix q(queries, 1), k(keys, 1);
  for (index i = 0; i < queries; ++i) q(i, 0) = i % 2 == 0 ? 1 : -1;
  for (index j = 0; j < keys; ++j) k(j, 0) = 2.0 * static_cast<double>(j - keys / 2);
  const real_matrix v = random_matrix(keys, 1, random), y = attended(q, k, v, shape);
  const double ratio = std::exp(-2.0);
  for (index i = 0; i < queries; ++i) {
    double expected = 0, total = 0;
    for (index j = 0; j < 40; ++j) {
      const double weight = std::pow(ratio, static_cast<double>(j));
      expected += weight * v(i % 2 == 0 ? keys - 1 - j : j, 0);
      total += weight;
    }
    // Scores are integers, exact; their conversion to units of ln 2 rounds twice, which moves weights by the
    // scores' size times that.
    const double error = 4 * unit_roundoff * static_cast<double>(keys) + attention_error(1, keys, 1);
    ASSERT_NEAR(y(i, 0), expected / total, error) << "row " << i;
  }
}

TEST_F(prefill_attention, results_do_not_depend_on_the_number_of_threads) {
  const attention_shape shape = scaled_attention(4, 2, 24);
  const real_matrix q = random_matrix(90, shape.query_size(), random);
  const real_matrix k = random_matrix(130, shape.kv_size(), random);
  const real_matrix v = random_matrix(130, shape.kv_size(), random);
  const real_matrix one = attended(q, k, v, shape, 1);
  for (const int threads : {2, 3, 7}) EXPECT_EQ(attended(q, k, v, shape, threads).values, one.values);
}

TEST_F(prefill_attention, a_key_of_nan_reaches_those_who_see_it) {
  const attention_shape shape = scaled_attention(1, 1, 4);
  for (const index bad : {index{0}, panel_queries + 3, attended_keys, attended_keys + 9}) {
    const index queries = 2 * attended_keys;
    const real_matrix q = random_matrix(queries, 4, random), v = random_matrix(queries, 4, random);
    real_matrix k = random_matrix(queries, 4, random);
    k(bad, 2) = std::numeric_limits<double>::quiet_NaN();
    const real_matrix y = attended(q, k, v, shape);
    for (index i = 0; i < queries; ++i) ASSERT_EQ(std::isnan(y(i, 1)), i >= bad) << "row " << i;
  }
}

TEST_F(prefill_attention, keys_with_scores_of_minus_infinity_weigh_nothing) {
  const attention_shape shape{1, 1, 1, 1.0f, false};
  const index keys = 3 * attended_keys;
  real_matrix q(panel_queries, 1), k(keys, 1);
  for (double& value : q.values) value = 1;
  // All of the first tile, half of the second.
  for (index j = 0; j < keys; ++j)
    k(j, 0) = j < attended_keys + attended_keys / 2 ? -std::numeric_limits<double>::infinity() : 0;
  const real_matrix v = random_matrix(keys, 1, random), y = attended(q, k, v, shape);
  double mean = 0;
  for (index j = attended_keys + attended_keys / 2; j < keys; ++j) mean += v(j, 0) / (1.5 * attended_keys);
  for (const double value : y.values) ASSERT_NEAR(value, mean, attention_error(1, keys, 1));

  for (double& value : k.values) value = -std::numeric_limits<double>::infinity();
  for (const double value : attended(q, k, v, shape).values) ASSERT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace corematching

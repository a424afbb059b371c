// SPDX-License-Identifier: Apache-2.0
// Products with weights in the block formats, against binary64 products with the values that the blocks hold:
// the only rounding beside binary32's is that of the other factor to integers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

constexpr dtype formats[] = {dtype::q8_0, dtype::q4_0, dtype::q8_0_planes, dtype::q4_0_planes};
/// One block, around the eight blocks whose scales are loaded at once, and around the panels of many tokens.
const std::vector<index> lengths = {32, 64, 224, 256, 288, 544, 1056};
const std::vector<index> row_counts = {1, 3, 4, 5, 16, 17, 33, 70};
const std::vector<index> block_token_counts = {1, 2, 4, 5, 7, few_tokens, few_tokens + 1, 37};

/// Tokens of dot products become multiples of 1/32767 or 1/127 of their block's largest element.
double token_unit(dtype format, index tokens) {
  if (tokens > few_tokens || !rounds_tokens_to_integers()) return product_unit(format);
  return whole_of(format) == dtype::q4_0 ? 1.0 / 127 : 1.0 / 32767;
}
/// Coefficients of weighted sums become multiples of 1/4095 or 1/127 of the largest of eight rows; for q8_0
/// the products are rounded to the same step once more.
double coefficient_unit(dtype format, index tokens) {
  if (tokens > few_tokens || !rounds_tokens_to_integers()) return sum_unit(format);
  return whole_of(format) == dtype::q4_0 ? 1.0 / 127 : 2.0 / 4095;
}

/// Calls body(format, tokens, rows, length) for every value of each with a few of the others.
template <class Body>
void for_each_shape(Body&& body) {
  for (const dtype format : formats)
    for (const index tokens : block_token_counts)
      for (std::size_t i = 0; i < std::max(lengths.size(), row_counts.size()); ++i) {
        const index rows = row_counts[i % row_counts.size()];
        const index length = lengths[(i + static_cast<std::size_t>(tokens)) % lengths.size()];
        SCOPED_TRACE(testing::Message()
                     << name_of(format) << ", " << tokens << " tokens, " << rows << " x " << length);
        body(format, tokens, rows, length);
        if (testing::Test::HasFatalFailure()) return;
      }
}

template <class B>
class quantised_operations : public testing::Test {
 protected:
  std::mt19937 random{7};

  real_matrix random_weight(index rows, index cols, dtype type, double magnitude) {
    return support::random_weight(rows, cols, type, random, magnitude);
  }
};
TYPED_TEST_SUITE(quantised_operations, backends);

TYPED_TEST(quantised_operations, matmul_multiplies_by_what_the_blocks_hold) {
  for_each_shape([&](dtype format, index tokens, index rows, index length) {
    const real_matrix x = random_matrix(tokens, length, this->random),
                      bias = random_matrix(1, rows, this->random);
    const real_matrix w = this->random_weight(rows, length, format, 1);
    const real_matrix expected = twin::matmul(x, w, bias);
    for_each_configuration<TypeParam>([&](TypeParam& be) {
      const placement where = placements[rows % 3];
      placed_matrix<TypeParam> y(be, tokens, rows, where), placed_x(be, x, where);
      auto placed_bias = placed_floats(be, bias);
      const auto weight = placed_weight(be, w, format, where);
      be.matmul(y.view(), placed_x.in(), weight.view, placed_bias.in());
      expect_near(y.values(), expected,
                  dot_error(length) + rounded_factor_error(length, token_unit(format, tokens)));
    });
  });
}

TYPED_TEST(quantised_operations, matmul_follows_tokens_of_very_different_size) {
  for (const dtype format : formats)
    for (const index tokens : {index{2}, few_tokens - 1, few_tokens + 1}) {
      real_matrix x = random_matrix(tokens, 96, this->random);
      for (index j = 0; j < 96; ++j) {
        x(0, j) *= 1e-20;
        x(1, j) = j < 64 ? 0 : x(1, j) * 1e6;
      }
      const real_matrix w = this->random_weight(20, 96, format, 1), expected = twin::matmul(x, w);
      TypeParam be = support::make_backend<TypeParam>(2);
      placed_matrix<TypeParam> y(be, tokens, 20), placed_x(be, x);
      be.matmul(y.view(), placed_x.in(), placed_weight(be, w, format).view, {});
      const real_matrix actual = y.values();
      const double relative = dot_error(96) + rounded_factor_error(96, token_unit(format, tokens));
      for (index j = 0; j < 20; ++j) {
        EXPECT_NEAR(actual(0, j), expected(0, j), 1e-20 * relative);
        EXPECT_NEAR(actual(1, j), expected(1, j), 1e6 * relative);
      }
    }
}

TYPED_TEST(quantised_operations, gated_up_computes_the_selected_neurons_in_their_order) {
  for_each_shape([&](dtype format, index tokens, index neurons, index length) {
    const double magnitude = 1 / std::sqrt(static_cast<double>(length));
    const real_matrix x = random_matrix(tokens, length, this->random);
    const real_matrix gate = this->random_weight(neurons, length, format, magnitude);
    const real_matrix up = this->random_weight(neurons, length, format, magnitude);
    for (const twin::neurons& selection : selections(neurons)) {
      const real_matrix expected = twin::gated_up(x, gate, up, activation::silu, selection);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> y(be, tokens, expected.cols, placements[1]), placed_x(be, x, placements[1]);
        placed_neurons<TypeParam> chosen(be, selection);
        be.gated_up(y.view(), placed_x.in(), placed_weight(be, gate, format, placements[2]).view,
                    placed_weight(be, up, format).view, activation::silu, chosen.view());
        expect_near(y.values(), expected,
                    gated_error(length, magnitude) +
                        5 * rounded_factor_error(length, token_unit(format, tokens), magnitude));
      });
    }
  });
}

TYPED_TEST(quantised_operations, weighted_rows_sums_the_rows_of_the_selected_neurons) {
  for_each_shape([&](dtype format, index tokens, index neurons, index length) {
    const real_matrix w = this->random_weight(neurons, length, format, 1);
    for (const twin::neurons& selection : selections(neurons)) {
      const real_matrix x = random_matrix(tokens, twin::count_of(selection, neurons), this->random);
      const real_matrix expected = twin::weighted_rows(x, w, selection);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> y(be, tokens, length, placements[2]), placed_x(be, x, placements[1]);
        placed_neurons<TypeParam> chosen(be, selection);
        be.weighted_rows(y.view(), placed_x.in(), placed_weight(be, w, format, placements[1]).view,
                         chosen.view());
        expect_near(y.values(), expected,
                    dot_error(x.cols) + rounded_factor_error(x.cols, coefficient_unit(format, tokens)));
      });
    }
  });
}

TYPED_TEST(quantised_operations, weighted_rows_follows_neurons_of_very_different_size) {
  // Around the 256 neurons that are summed at once; neighbours differ in size up to a thousandfold.
  for (const dtype format : formats)
    for (const index neurons : {31, 32, 33, 255, 256, 257, 545})
      for (const index tokens : {few_tokens - 1, few_tokens + 1, few_tokens + 3}) {
        SCOPED_TRACE(testing::Message() << name_of(format) << ", " << tokens << " x " << neurons);
        real_matrix w = random_matrix(neurons, 96, this->random);
        for (index n = 0; n < neurons; ++n)
          for (index j = 0; j < 96; ++j) w(n, j) *= std::pow(10.0, static_cast<double>(-(n % 4)));
        w = rounded(w, format);
        for (const twin::neurons& selection : selections(neurons)) {
          const real_matrix x = random_matrix(tokens, twin::count_of(selection, neurons), this->random);
          TypeParam be = support::make_backend<TypeParam>(2);
          placed_matrix<TypeParam> y(be, tokens, 96), placed_x(be, x);
          placed_neurons<TypeParam> chosen(be, selection);
          be.weighted_rows(y.view(), placed_x.in(), placed_weight(be, w, format).view, chosen.view());
          expect_near(y.values(), twin::weighted_rows(x, w, selection),
                      dot_error(x.cols) + rounded_factor_error(x.cols, coefficient_unit(format, tokens)));
        }
      }
}

TYPED_TEST(quantised_operations, a_number_that_is_not_finite_reaches_no_other_token) {
  for (const dtype format : formats)
    for (const index tokens : {index{3}, few_tokens + 3}) {
      real_matrix x = random_matrix(tokens, 64, this->random);
      const real_matrix w = this->random_weight(64, 64, format, 1);
      const real_matrix products = twin::matmul(x, w), sums = twin::weighted_rows(x, w);
      x(1, 40) = INFINITY;
      TypeParam be = support::make_backend<TypeParam>(2);
      placed_matrix<TypeParam> product(be, tokens, 64), sum(be, tokens, 64), placed_x(be, x);
      const auto weight = placed_weight(be, w, format);
      be.matmul(product.view(), placed_x.in(), weight.view, {});
      be.weighted_rows(sum.view(), placed_x.in(), weight.view, {});
      const double tolerance =
          dot_error(64) +
          rounded_factor_error(64, std::max(token_unit(format, tokens), coefficient_unit(format, tokens)));
      const real_matrix actual_product = product.values(), actual_sum = sum.values();
      for (index t = 0; t < tokens; ++t)
        for (index j = 0; j < 64; ++j) {
          EXPECT_EQ(std::isfinite(actual_product(t, j)), t != 1);
          EXPECT_EQ(std::isfinite(actual_sum(t, j)), t != 1);
          if (t == 1) continue;
          EXPECT_NEAR(actual_product(t, j), products(t, j), tolerance);
          EXPECT_NEAR(actual_sum(t, j), sums(t, j), tolerance);
        }
    }
}

TYPED_TEST(quantised_operations, embed_looks_up_what_the_blocks_hold) {
  for (const dtype format : formats) {
    const real_matrix table = this->random_weight(6, 96, format, 1);
    TypeParam be = support::make_backend<TypeParam>(1);
    placed_matrix<TypeParam> y(be, 2, 96);
    placed_vector<TypeParam, std::int32_t> ids(be, {4, 1});
    be.embed(y.view(), placed_weight(be, table, format).view, ids.in());
    const real_matrix actual = y.values();
    for (index j = 0; j < 96; ++j) {
      EXPECT_EQ(actual(0, j), table(4, j));
      EXPECT_EQ(actual(1, j), table(1, j));
    }
  }
}

}  // namespace
}  // namespace corematching

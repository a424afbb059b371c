// SPDX-License-Identifier: Apache-2.0
// Matrix products, pointwise operations and row movements of a backend against their formulas.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "corematching/backend/fused.hpp"
#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;

/// Around the widths of registers (8), of unrolled loops (16, 64) and of panels (16 and 32 by 128).
const std::vector<index> sizes = {1,  2,  3,  5,  7,  8,   9,   15,  16,  17, 31,
                                  32, 33, 63, 64, 65, 100, 127, 128, 129, 513};
/// Few tokens go through other code, by fours and twos, than more of them, which it takes by sixes.
const std::vector<index> token_counts = {1, 2, 3, 4, 5, 7, 8, few_tokens, few_tokens + 1, 37};
constexpr dtype storage_types[] = {dtype::f32, dtype::f16, dtype::bf16};

/// Every size with a few of the others.
std::vector<std::pair<index, index>> size_pairs() {
  std::vector<std::pair<index, index>> pairs;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (const std::size_t step : {3u, 7u})
      pairs.emplace_back(sizes[i], sizes[(i * 5 + step) % sizes.size()]);
  return pairs;
}

template <class B>
class backend_operations : public testing::Test {
 protected:
  std::mt19937 random{7};

  real_matrix random_weight(index rows, index cols, dtype type, double magnitude) {
    return support::random_weight(rows, cols, type, random, magnitude);
  }
};
TYPED_TEST_SUITE(backend_operations, backends);

TYPED_TEST(backend_operations, matmul_multiplies_by_the_transposed_weight_and_adds_the_bias) {
  sampled_cases cases;
  for (const dtype type : storage_types)
    for (const index tokens : token_counts)
      for (const auto& sides : size_pairs()) {
        const index out = sides.first, in = sides.second;  // a lambda may not capture a binding in C++20
        if (!cases.takes_next(5)) continue;
        SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " x " << in << " -> " << out);
        const real_matrix x = random_matrix(tokens, in, this->random),
                          bias = random_matrix(1, out, this->random);
        const real_matrix w = this->random_weight(out, in, type, 1);
        const real_matrix expected = twin::matmul(as_multiplied(x, type), w, bias);
        for_each_configuration<TypeParam>([&](TypeParam& be) {
          const placement where = placements[(out + in) % 3];
          placed_matrix<TypeParam> y(be, tokens, out, where), placed_x(be, x, where);
          auto placed_bias = placed_floats(be, bias);
          const auto weight = placed_weight(be, w, type, where);
          be.matmul(y.view(), placed_x.in(), weight.view, placed_bias.in());
          expect_near(y.values(), expected, dot_error(in) + many_tokens_error(type, tokens, in));
        });
        if (this->HasFatalFailure()) return;
      }
}

TYPED_TEST(backend_operations, matmul_without_bias_adds_none) {
  for (const index tokens : {index{1}, few_tokens + 1}) {
    const real_matrix x = random_matrix(tokens, 33, this->random), w = random_matrix(17, 33, this->random);
    TypeParam be = support::make_backend<TypeParam>(2);
    placed_matrix<TypeParam> y(be, tokens, 17), placed_x(be, x);
    be.matmul(y.view(), placed_x.in(), placed_weight(be, w, dtype::f32).view, {});
    expect_near(y.values(), twin::matmul(x, w), dot_error(33));
  }
}

TYPED_TEST(backend_operations, projections_are_products_of_the_same_rows) {
  const index in = 129;
  for (const dtype type : storage_types)
    for (const index tokens : {index{1}, index{3}, few_tokens, few_tokens + 1, index{37}}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " tokens");
      const real_matrix x = random_matrix(tokens, in, this->random), bias = random_matrix(1, 7, this->random);
      const real_matrix large = this->random_weight(100, in, type, 1),
                        small = this->random_weight(7, in, type, 1),
                        other = random_matrix(33, in, this->random);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> a(be, tokens, 100), b(be, tokens, 7, {1, 3}), c(be, tokens, 33),
            placed_x(be, x);
        auto placed_bias = placed_floats(be, bias);
        const auto placed_large = placed_weight(be, large, type),
                   placed_small = placed_weight(be, small, type),
                   placed_other = placed_weight(be, other, dtype::f32);
        const std::vector<projection<typename TypeParam::space>> projections = {
            {a.view(), placed_large.view, {}},
            {b.view(), placed_small.view, placed_bias.in()},
            {c.view(), placed_other.view, {}}};
        detail::project(be, projections, placed_x.in());
        const real_matrix expected_x = as_multiplied(x, type);
        const double error = dot_error(in) + many_tokens_error(type, tokens, in);
        expect_near(a.values(), twin::matmul(expected_x, large), error);
        expect_near(b.values(), twin::matmul(expected_x, small, bias), error);
        expect_near(c.values(), twin::matmul(as_multiplied(x, dtype::f32), other), dot_error(in));
      });
    }
}

TYPED_TEST(backend_operations, gated_up_computes_the_selected_neurons_in_their_order) {
  sampled_cases cases;
  for (const dtype type : storage_types)
    for (const index tokens : {index{1}, index{3}, few_tokens, few_tokens + 1, index{37}})
      for (const auto& sides : size_pairs()) {
        const index neurons = sides.first, in = sides.second;  // a lambda may not capture a binding in C++20
        if (neurons * in > 20000) continue;
        const double magnitude = weight_magnitude(in);
        const real_matrix x = random_matrix(tokens, in, this->random);
        const real_matrix gate = this->random_weight(neurons, in, type, magnitude);
        const real_matrix up = this->random_weight(neurons, in, type, magnitude);
        for (const twin::neurons& selection : selections(neurons)) {
          if (!cases.takes_next(4)) continue;
          SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " x " << in << " -> "
                                          << twin::count_of(selection, neurons) << " of " << neurons);
          const real_matrix expected =
              twin::gated_up(as_multiplied(x, type), gate, up, activation::silu, selection);
          for_each_configuration<TypeParam>([&](TypeParam& be) {
            const placement where = placements[(neurons + in) % 3];
            placed_matrix<TypeParam> y(be, tokens, expected.cols, where), placed_x(be, x, where);
            placed_neurons<TypeParam> chosen(be, selection);
            const auto placed_gate = placed_weight(be, gate, type, where),
                       placed_up = placed_weight(be, up, type);
            be.gated_up(y.view(), placed_x.in(), placed_gate.view, placed_up.view, activation::silu,
                        chosen.view());
            expect_near(y.values(), expected,
                        gated_error(in, magnitude) + stored_gate_error(type, tokens) +
                            5 * many_tokens_error(type, tokens, in, magnitude));
          });
          if (this->HasFatalFailure()) return;
        }
      }
}

TYPED_TEST(backend_operations, gated_up_applies_each_activation) {
  for (const activation act : activations)
    for (const index tokens : {index{1}, few_tokens + 1}) {
      const real_matrix x = random_matrix(tokens, 20, this->random);
      const real_matrix gate = random_matrix(19, 20, this->random, 0.4),
                        up = random_matrix(19, 20, this->random, 0.4);
      TypeParam be = support::make_backend<TypeParam>(1);
      placed_matrix<TypeParam> y(be, tokens, 19), placed_x(be, x);
      be.gated_up(y.view(), placed_x.in(), placed_weight(be, gate, dtype::f32).view,
                  placed_weight(be, up, dtype::f32).view, act, {});
      expect_near(y.values(), twin::gated_up(x, gate, up, act), gated_error(20, 0.4));
    }
}

TYPED_TEST(backend_operations, weighted_rows_sums_the_rows_of_the_selected_neurons) {
  sampled_cases cases;
  for (const dtype type : storage_types)
    for (const index tokens : {index{1}, index{3}, few_tokens, few_tokens + 1, index{37}})
      for (const auto& sides : size_pairs()) {
        const index neurons = sides.first, out = sides.second;  // a lambda may not capture a binding in C++20
        if (neurons * out > 20000) continue;
        const real_matrix w = this->random_weight(neurons, out, type, 1);
        for (const twin::neurons& selection : selections(neurons)) {
          if (!cases.takes_next(4)) continue;
          const real_matrix x = random_matrix(tokens, twin::count_of(selection, neurons), this->random);
          SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " x " << x.cols << " of "
                                          << neurons << " -> " << out);
          const real_matrix expected = twin::weighted_rows(as_multiplied(x, type), w, selection);
          for_each_configuration<TypeParam>([&](TypeParam& be) {
            const placement where = placements[(neurons + out) % 3];
            placed_matrix<TypeParam> y(be, tokens, out, where), placed_x(be, x, where);
            placed_neurons<TypeParam> chosen(be, selection);
            be.weighted_rows(y.view(), placed_x.in(), placed_weight(be, w, type, where).view, chosen.view());
            expect_near(y.values(), expected, dot_error(x.cols) + many_tokens_error(type, tokens, x.cols));
          });
          if (this->HasFatalFailure()) return;
        }
      }
}

TYPED_TEST(backend_operations, products_walk_through_weights_larger_than_one_panel) {
  const real_matrix x = random_matrix(std::min<index>(few_tokens + 1, exact_tokens), 24, this->random);
  const double magnitude = weight_magnitude(24);
  for (const dtype type : storage_types) {
    const real_matrix w = this->random_weight(1200, 24, type, magnitude);
    for (const twin::neurons& selection : selections(1200)) {
      const real_matrix activations_of = twin::gated_up(x, w, w, activation::silu, selection);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        const auto weight = placed_weight(be, w, type, {1, 5});
        placed_matrix<TypeParam> placed_x(be, x), y(be, x.rows, activations_of.cols), sum(be, x.rows, 24);
        placed_neurons<TypeParam> chosen(be, selection);
        be.gated_up(y.view(), placed_x.in(), weight.view, weight.view, activation::silu, chosen.view());
        expect_near(y.values(), activations_of, gated_error(24, magnitude));
        be.weighted_rows(sum.view(), y.in(), weight.view, chosen.view());
        // Errors of the activations, at most as many of one sign as there are neurons, and of the sum.
        expect_near(sum.values(), twin::weighted_rows(activations_of, w, selection),
                    std::sqrt(1200.0) * gated_error(24, magnitude) + dot_error(1200, magnitude));
      });
    }
  }
}

TYPED_TEST(backend_operations, products_take_more_tokens_than_are_multiplied_at_once) {
  const index tokens = 1543, in = 64, out = 33;
  const real_matrix x = random_matrix(tokens, in, this->random), h = random_matrix(tokens, out, this->random);
  for (const dtype type : {dtype::f32, has_block_formats ? dtype::q8_0 : dtype::bf16}) {
    SCOPED_TRACE(name_of(type));
    const real_matrix w = this->random_weight(out, in, type, 1);
    for_each_configuration<TypeParam>([&](TypeParam& be) {
      const auto weight = placed_weight(be, w, type);
      placed_matrix<TypeParam> placed_x(be, x, {1, 3}), placed_h(be, h), y(be, tokens, out),
          sum(be, tokens, in);
      be.matmul(y.view(), placed_x.in(), weight.view, {});
      expect_near(y.values(), twin::matmul(as_multiplied(x, type), w),
                  dot_error(in) + rounded_factor_error(in, product_unit(type)));
      be.weighted_rows(sum.view(), placed_h.in(), weight.view, {});
      expect_near(sum.values(), twin::weighted_rows(as_multiplied(h, type), w),
                  dot_error(out) + rounded_factor_error(out, sum_unit(type)));
    });
  }
}

TYPED_TEST(backend_operations, counts_work_by_the_shapes_of_products) {
  TypeParam be = support::make_backend<TypeParam>(2);
  const index d = 24, n = 40, t = 3;
  const auto w = placed_weight(be, random_matrix(n, d, this->random), dtype::bf16, {0, 8});
  placed_matrix<TypeParam> x(be, random_matrix(t, d, this->random)), y(be, t, n), few(be, t, 13),
      sum(be, t, d);
  placed_neurons<TypeParam> chosen(be, selections(n)[3]);  // 13 of them
  const auto cost_of = [&](auto&& work) {
    const work_counters before = be.counters();
    work();
    return be.counters() - before;
  };
  EXPECT_EQ(cost_of([&] { be.matmul(y.view(), x.in(), w.view, {}); }),
            (work_counters{2 * t * d * n, 2 * d * n, 0}));
  EXPECT_EQ(
      cost_of([&] { be.gated_up(few.view(), x.in(), w.view, w.view, activation::silu, chosen.view()); }),
      (work_counters{4 * t * d * 13, 4 * d * 13, 0}));
  EXPECT_EQ(cost_of([&] { be.weighted_rows(sum.view(), few.in(), w.view, chosen.view()); }),
            (work_counters{2 * t * d * 13, 2 * d * 13, 0}));
  EXPECT_EQ(cost_of([&] { be.add(sum.view(), x.in()); }), work_counters{});
}

TYPED_TEST(backend_operations, rms_norm_divides_by_the_root_mean_square) {
  for (const index cols : sizes)
    for (const double eps : {1e-5, 1e-2}) {
      const real_matrix x = random_matrix(5, cols, this->random),
                        weight = random_matrix(1, cols, this->random);
      const real_matrix expected = twin::rms_norm(x, weight, static_cast<float>(eps));
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> y(be, 5, cols, {1, 2}), placed_x(be, x, {3, 1});
        auto scale = placed_floats(be, weight);
        be.rms_norm(y.view(), placed_x.in(), scale.in(), static_cast<float>(eps));
        expect_near(y.values(), expected, norm_error(cols, largest_magnitude(expected)));
        be.rms_norm(placed_x.view(), placed_x.in(), scale.in(), static_cast<float>(eps));
        EXPECT_EQ(placed_x.values().values, y.values().values) << "in place";
      });
    }
}

TYPED_TEST(backend_operations, layer_norm_removes_mean_and_variance) {
  for (const index cols : sizes) {
    real_matrix x = random_matrix(5, cols, this->random);
    for (double& value : x.values) value = double{static_cast<float>(value + 2)};  // a mean that matters
    const real_matrix weight = random_matrix(1, cols, this->random),
                      bias = random_matrix(1, cols, this->random);
    const real_matrix expected = twin::layer_norm(x, weight, bias, 1e-2f);
    for_each_configuration<TypeParam>([&](TypeParam& be) {
      placed_matrix<TypeParam> y(be, 5, cols, {1, 2}), placed_x(be, x, {3, 1});
      auto scale = placed_floats(be, weight), shift = placed_floats(be, bias);
      be.layer_norm(y.view(), placed_x.in(), scale.in(), shift.in(), 1e-2f);
      // The mean is three times as large as the values without it, and eps bounds the division by 10.
      expect_near(y.values(), expected, 10 * 3 * norm_error(cols, largest_magnitude(expected)));
    });
  }
}

TYPED_TEST(backend_operations, norms_may_run_in_place) {
  const real_matrix x = random_matrix(3, 33, this->random), weight = random_matrix(1, 33, this->random);
  TypeParam be = support::make_backend<TypeParam>(2);
  placed_matrix<TypeParam> placed(be, x);
  auto scale = placed_floats(be, weight);
  be.layer_norm(placed.view(), placed.in(), scale.in(), scale.in(), 1e-5f);
  expect_near(placed.values(), twin::layer_norm(x, weight, weight, 1e-5f), 10 * norm_error(33, 4));
}

TYPED_TEST(backend_operations, rotary_turns_pairs_half_a_head_apart) {
  for (const index heads : {1, 3, 8})
    for (const index half : {1, 3, 8, 32}) {
      real_matrix x = random_matrix(7, heads * 2 * half, this->random);
      const std::vector<std::int32_t> positions = {0, 1, 2, 7, 63, -5, 4000};
      std::vector<float> frequencies;
      for (index i = 0; i < half; ++i)
        frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half)));
      real_matrix expected = x;
      for (index i = 0; i < x.rows; ++i)
        twin::rotate(&expected(i, 0), heads, positions[static_cast<std::size_t>(i)], frequencies);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> placed(be, x, {1, 5});
        placed_vector<TypeParam, std::int32_t> at(be, positions);
        placed_vector<TypeParam, float> turning(be, frequencies);
        be.rotary(placed.view(), at.in(), turning.in(), static_cast<std::int32_t>(heads));
        // The angle is rounded: at most 4000 u, times sqrt(2) for the pair; then a few roundings.
        expect_near(placed.values(), expected, unit_roundoff * (4000 * std::sqrt(2.0) + 8));
      });
    }
}

TYPED_TEST(backend_operations, activate_applies_the_function_to_every_element) {
  for (const activation act : activations)
    for (const index cols : sizes) {
      const real_matrix x = random_matrix(3, cols, this->random, 8);
      real_matrix expected = x;
      for (double& value : expected.values) value = twin::activated(act, value);
      TypeParam be = support::make_backend<TypeParam>(2);
      placed_matrix<TypeParam> placed(be, x, {1, 2});
      be.activate(placed.view(), act);
      // 0.5 x (1 + erf) cancels: an absolute error of a few u |x|.
      expect_near(placed.values(), expected, 8 * 16 * unit_roundoff);
    }
}

TYPED_TEST(backend_operations, activations_of_extreme_values_are_finite_limits) {
  real_matrix x(1, 4);
  x.values = {-1e30, -200, 200, 1e30};
  for (const activation act : {activation::silu, activation::quick_gelu, activation::gelu_erf}) {
    TypeParam be = support::make_backend<TypeParam>(1);
    placed_matrix<TypeParam> placed(be, x);
    be.activate(placed.view(), act);
    const real_matrix y = placed.values();
    EXPECT_NEAR(y(0, 1), 0, 1e-30);
    EXPECT_EQ(y(0, 2), 200);
    EXPECT_EQ(y(0, 3), static_cast<double>(1e30f));
  }
}

TYPED_TEST(backend_operations, add_and_copy_touch_their_rows_alone) {
  for (const index cols : sizes)
    for (const index rows : {1, 3, 40}) {
      const real_matrix x = random_matrix(rows, cols, this->random),
                        y = random_matrix(rows, cols, this->random);
      real_matrix sum = x;
      for (std::size_t i = 0; i < sum.values.size(); ++i)
        sum.values[i] = double{static_cast<float>(x.values[i]) + static_cast<float>(y.values[i])};
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> placed_x(be, x, {1, 2}), placed_y(be, y, {2, 7}),
            target(be, rows, cols, {3, 1});
        be.add(placed_y.view(), placed_x.in());
        be.copy(target.view(), placed_y.in());
        EXPECT_EQ(placed_y.values().values, sum.values);
        EXPECT_EQ(target.values().values, sum.values);
      });
    }
}

TYPED_TEST(backend_operations, gather_rows_moves_the_named_rows_in_place_or_elsewhere) {
  const real_matrix x = random_matrix(9, 17, this->random);
  for (const std::vector<std::int32_t>& rows :
       {std::vector<std::int32_t>{}, {0}, {8}, {1, 2, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {0, 4, 8}}) {
    real_matrix expected(std::ssize(rows), 17);
    for (index i = 0; i < expected.rows; ++i)
      for (index j = 0; j < 17; ++j) expected(i, j) = x(rows[static_cast<std::size_t>(i)], j);
    TypeParam be = support::make_backend<TypeParam>(2);
    placed_vector<TypeParam, std::int32_t> device_rows(be, rows);
    placed_matrix<TypeParam> placed(be, x, {1, 2}), target(be, expected.rows, 17);
    be.gather_rows(target.view(), placed.in(), device_rows.in());
    EXPECT_EQ(target.values().values, expected.values);
    EXPECT_EQ(placed.values().values, x.values);
    be.gather_rows(placed.view().top_rows(expected.rows), placed.in(), device_rows.in());
    real_matrix moved = placed.values();
    moved.values.resize(expected.values.size());
    EXPECT_EQ(moved.values, expected.values);
  }
}

TYPED_TEST(backend_operations, zero_rows_clears_the_named_rows_alone) {
  const real_matrix x = random_matrix(6, 17, this->random);
  real_matrix expected = x;
  for (const index row : {0, 3, 5})
    for (index j = 0; j < 17; ++j) expected(row, j) = 0;
  TypeParam be = support::make_backend<TypeParam>(2);
  placed_matrix<TypeParam> placed(be, x, {1, 2});
  placed_vector<TypeParam, std::int32_t> rows(be, {0, 3, 5}), none(be, {});
  be.zero_rows(placed.view(), none.in());
  EXPECT_EQ(placed.values().values, x.values);
  be.zero_rows(placed.view(), rows.in());
  EXPECT_EQ(placed.values().values, expected.values);
}

TYPED_TEST(backend_operations, embed_looks_up_rows_of_the_table) {
  for (const dtype type : storage_types)
    for (const index cols : sizes) {
      const real_matrix table = this->random_weight(6, cols, type, 1);
      const std::vector<std::int32_t> ids = {5, 0, 0, 3};
      real_matrix expected(4, cols);
      for (index i = 0; i < 4; ++i)
        for (index j = 0; j < cols; ++j) expected(i, j) = table(ids[static_cast<std::size_t>(i)], j);
      TypeParam be = support::make_backend<TypeParam>(1);
      placed_matrix<TypeParam> y(be, 4, cols, {1, 2});
      placed_vector<TypeParam, std::int32_t> placed_ids(be, ids);
      be.embed(y.view(), placed_weight(be, table, type, {1, 3}).view, placed_ids.in());
      EXPECT_EQ(y.values().values, expected.values);
    }
}

TYPED_TEST(backend_operations, give_the_same_bits_in_every_run_with_the_same_threads) {
  const index many = few_tokens + 1;
  const real_matrix x = random_matrix(many, 100, this->random), w = random_matrix(300, 100, this->random);
  const real_matrix inner = random_matrix(many, 300, this->random);
  for_each_configuration<TypeParam>([&](TypeParam& be) {
    const auto weight = placed_weight(be, w, dtype::f32);
    for (const index tokens : {index{1}, few_tokens, many}) {
      std::vector<double> first;
      for (int round = 0; round < 5; ++round) {
        placed_matrix<TypeParam> placed_x(be, x), placed_inner(be, inner), y(be, tokens, 300),
            sum(be, tokens, 100);
        be.gated_up(y.view(), placed_x.in().top_rows(tokens), weight.view, weight.view, activation::silu, {});
        be.weighted_rows(sum.view(), placed_inner.in().top_rows(tokens), weight.view, {});
        std::vector<double> results = y.values().values;
        std::ranges::copy(sum.values().values, std::back_inserter(results));
        if (round == 0) first = results;
        ASSERT_EQ(results, first);
      }
    }
  });
}

}  // namespace
}  // namespace corematching

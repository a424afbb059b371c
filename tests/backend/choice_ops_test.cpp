// SPDX-License-Identifier: Apache-2.0
// What neurons are chosen with for each token, against binary64 and against sorting.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "corematching/select/top_k.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

template <class B>
class choice_operations : public testing::Test {
 protected:
  std::mt19937 random{11};
};
TYPED_TEST_SUITE(choice_operations, backends);

TYPED_TEST(choice_operations, multiply_multiplies_in_place) {
  for (const auto& [rows, cols] : {std::pair<index, index>{1, 1}, {3, 17}, {5, 64}, {2, 1100}})
    for (const placement where : placements) {
      const real_matrix x = random_matrix(rows, cols, this->random),
                        y = random_matrix(rows, cols, this->random);
      real_matrix expected = y;
      for (std::size_t i = 0; i < x.values.size(); ++i) expected.values[i] *= x.values[i];
      for_each_configuration<TypeParam>([&, rows = rows, cols = cols](TypeParam& be) {
        placed_matrix<TypeParam> placed_y(be, y, where), placed_x(be, x, where);
        be.multiply(placed_y.view(), placed_x.in());
        expect_near(placed_y.values(), expected, unit_roundoff);
      });
    }
}

TYPED_TEST(choice_operations, add_magnitudes_goes_on_summing_the_rows_that_count) {
  for (const index cols : {1, 17, 130, 1100}) {
    const real_matrix x = random_matrix(9, cols, this->random), before = random_matrix(1, cols, this->random);
    const std::vector<std::int32_t> some{0, 3, 4, 8};
    for (const bool all : {true, false})
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> placed_x(be, x, {1, 3});
        auto sums = placed_floats(be, before);
        placed_neurons<TypeParam> rows(be, all ? twin::neurons() : some);
        be.add_magnitudes(sums.view(), placed_x.in(), rows.view());
        const std::vector<float> result = sums.values();
        for (index n = 0; n < cols; ++n) {
          double expected = before(0, n);
          for (index i = 0; i < x.rows; ++i)
            if (all || std::ranges::count(some, i) > 0) expected += std::abs(x(i, n));
          ASSERT_NEAR(double{result[static_cast<std::size_t>(n)]}, expected, 10 * 10 * unit_roundoff);
        }
      });
  }
}

TYPED_TEST(choice_operations, zero_others_leaves_the_chosen_alone) {
  const real_matrix x = random_matrix(1, 70, this->random);
  std::vector<std::int32_t> all(70);
  std::iota(all.begin(), all.end(), 0);
  for (const std::vector<std::int32_t>& chosen :
       {std::vector<std::int32_t>{0}, {69}, {3, 4, 40}, {0, 35, 69}, all})
    for_each_configuration<TypeParam>([&](TypeParam& be) {
      auto values = placed_floats(be, x);
      placed_neurons<TypeParam> places(be, twin::neurons(chosen));
      be.zero_others(values.view(), *places.view());
      const std::vector<float> result = values.values();
      for (index n = 0; n < x.cols; ++n)
        EXPECT_EQ(result[static_cast<std::size_t>(n)],
                  std::ranges::count(chosen, n) > 0 ? static_cast<float>(x(0, n)) : 0)
            << n << " of " << chosen.size();
    });
}

TYPED_TEST(choice_operations, top_k_is_the_selectors_on_every_backend) {
  sampled_cases cases;
  for (const index size : {1, 33, 1000, 3000, 17000})
    for (const bool weighted : {false, true})
      for (const bool ties : {false, true}) {
        real_matrix x = random_matrix(1, size, this->random), weights = random_matrix(1, size, this->random);
        for (double& value : x.values)
          if (ties) value = std::round(2 * value);
        for (double& weight : weights.values) weight = ties ? std::round(std::abs(weight)) : std::abs(weight);
        for (const double share : {0.05, 0.4, 1.0}) {
          if (!cases.takes_next(2)) continue;
          std::vector<std::int32_t> expected(
              static_cast<std::size_t>(std::ceil(share * static_cast<double>(size))));
          const std::vector<float> x_floats(x.values.begin(), x.values.end()),
              weight_floats(weights.values.begin(), weights.values.end());
          select::top_k({expected.data(), std::ssize(expected)},
                        vector_view<const float>{x_floats.data(), size},
                        vector_view<const float>{weight_floats.data(), weighted ? size : 0});
          for_each_configuration<TypeParam>([&](TypeParam& be) {
            auto placed_x = placed_floats(be, x), placed_weights = placed_floats(be, weights);
            placed_vector<TypeParam, std::int32_t> places(be, std::vector<std::int32_t>(expected.size(), -1));
            if (weighted)
              be.top_k(places.view(), placed_x.in(), placed_weights.in());
            else
              be.top_k(places.view(), placed_x.in());
            ASSERT_EQ(places.values(), expected) << size << ", " << share;
          });
        }
      }
}

TYPED_TEST(choice_operations, top_k_takes_any_kind_of_nan_for_the_largest) {
  const float quiet = std::numeric_limits<float>::quiet_NaN(), all_bits = std::bit_cast<float>(0x7fffffff);
  const std::vector<float> some{1, -quiet, 5, all_bits, 3, -all_bits, 0}, all(5, all_bits), ones(7, 1);
  for_each_configuration<TypeParam>([&](TypeParam& be) {
    placed_vector<TypeParam, float> mixed(be, some), only(be, all), weights(be, ones);
    placed_vector<TypeParam, std::int32_t> four(be, {-1, -1, -1, -1}), three(be, {-1, -1, -1});
    for (const bool weighted : {false, true}) {
      be.top_k(four.view(), mixed.in(),
               weighted ? weights.in() : vector_view<const float, typename TypeParam::space>{});
      EXPECT_EQ(four.values(), (std::vector<std::int32_t>{1, 2, 3, 5}));
    }
    be.top_k(three.view(), only.in());
    EXPECT_EQ(three.values(), (std::vector<std::int32_t>{0, 1, 2}));
  });
}

TYPED_TEST(choice_operations, top_k_refuses_more_than_there_are) {
  TypeParam be = support::make_backend<TypeParam>(1);
  placed_vector<TypeParam, float> x(be, {1, 2});
  placed_vector<TypeParam, std::int32_t> places(be, {0, 0, 0});
  expect_parts(error_text([&] { be.top_k(places.view(), x.in()); }), "3 of 2");
}

/// Tokens of one dot product, as quantised_ops_test.cpp knows them: rounded to 16 bits for q8_0, to 8 for
/// q4_0.
double token_unit(dtype type) {
  if (!is_quantised(type) || !rounds_tokens_to_integers()) return 0;
  return whole_of(type) == dtype::q4_0 ? 1.0 / 127 : 1.0 / 32767;
}

TYPED_TEST(choice_operations, scaled_matmul_multiplies_the_chosen_rows_and_scales_each) {
  std::vector<dtype> types{dtype::f32, dtype::f16, dtype::bf16};
  types.push_back(dtype::f16_planes);
  if (has_block_formats)
    types.insert(types.end(), {dtype::q8_0, dtype::q4_0, dtype::q8_0_planes, dtype::q4_0_planes});
  for (const dtype type : types)
    for (const auto& [rows, length] : {std::pair<index, index>{1, 32}, {40, 96}, {300, 544}}) {
      const real_matrix x = random_matrix(1, length, this->random),
                        factors = random_matrix(1, rows, this->random);
      const real_matrix w = random_weight(rows, length, type, this->random, 1);
      for (const twin::neurons& selection : selections(rows)) {
        if (!selection) continue;
        const real_matrix products = twin::matmul(x, w);
        real_matrix expected(1, std::ssize(*selection));
        for (index i = 0; i < expected.cols; ++i) {
          const index n = (*selection)[static_cast<std::size_t>(i)];
          expected(0, i) = factors(0, n) * products(0, n);
        }
        for_each_configuration<TypeParam>([&, length = length](TypeParam& be) {
          placed_matrix<TypeParam> y(be, 1, expected.cols), placed_x(be, x);
          auto placed_factors = placed_floats(be, factors);
          placed_vector<TypeParam, std::int32_t> chosen(be, *selection);
          const auto weight = placed_weight(be, w, type);
          const work_counters before = be.counters();
          be.scaled_matmul(y.view(), placed_x.in(), weight.view, placed_factors.in(), chosen.in());
          expect_near(y.values(), expected,
                      2 * dot_error(length) + rounded_factor_error(length, token_unit(type)));
          work_counters expected_work;
          expected_work.count_product(1, expected.cols, weight.view);
          EXPECT_EQ(work_counters(be.counters()) - before, expected_work);
        });
        if (this->HasFatalFailure()) return;
      }
    }
}

const std::vector<std::pair<index, index>> plane_shapes{{1, 32}, {40, 96}, {70, 256}, {300, 544}},
    odd_shapes{{1, 1}, {3, 7}, {40, 97}, {300, 549}};  // of formats without blocks, also

/// Calls body(type, rows, length) for every format in two planes.
template <class Body>
void for_plane_shapes(Body&& body) {
  for (const dtype type : {dtype::q8_0_planes, dtype::q4_0_planes, dtype::f16_planes}) {
    if (is_quantised(type) && !has_block_formats) continue;
    std::vector<std::pair<index, index>> all = plane_shapes;
    if (!is_quantised(type)) all.insert(all.end(), odd_shapes.begin(), odd_shapes.end());
    for (const auto& [rows, length] : all) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << rows << " x " << length);
      body(type, rows, length);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

/// Bytes of 32 weights in the upper plane, and of what makes them exact.
struct plane_bytes {
  index upper, finishing;
};
plane_bytes bytes_of_32(dtype type) {
  if (type == dtype::f16_planes) return {32, 64};
  return type == dtype::q8_0_planes ? plane_bytes{18, 16} : plane_bytes{10, 8};
}

TYPED_TEST(choice_operations, coarse_matmul_multiplies_by_the_upper_plane) {
  for_plane_shapes([&](dtype type, index rows, index length) {
    const real_matrix w = random_weight(rows, length, type, this->random, 1),
                      coarse = support::coarse_of(w, type);
    for (const index tokens : {1, 3}) {
      const real_matrix x = random_matrix(tokens, length, this->random), expected = twin::matmul(x, coarse);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> y(be, tokens, rows, {1, 3}), placed_x(be, x);
        const auto weight = placed_weight(be, w, type);
        const work_counters before = be.counters();
        be.coarse_matmul(y.view(), placed_x.in(), weight.view);
        EXPECT_EQ((work_counters(be.counters()) - before).weight_bytes,
                  static_cast<std::uint64_t>(rows * length * bytes_of_32(type).upper / 32));
        expect_near(y.values(), expected,
                    2 * dot_error(length) + rounded_factor_error(length, token_unit(type)));
      });
    }
  });
}

TYPED_TEST(choice_operations, finish_gated_up_makes_the_chosen_neurons_exact) {
  for_plane_shapes([&](dtype type, index rows, index length) {
    const double magnitude = weight_magnitude(length);
    const real_matrix x = random_matrix(1, length, this->random);
    const real_matrix gate = random_weight(rows, length, type, this->random, magnitude),
                      up = random_weight(rows, length, type, this->random, magnitude);
    for (const twin::neurons& selection : selections(rows)) {
      if (!selection) continue;
      const real_matrix expected = twin::gated_up(x, gate, up, activation::silu, selection);
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> gates(be, 1, rows), ups(be, 1, rows), y(be, 1, expected.cols),
            placed_x(be, x);
        placed_vector<TypeParam, std::int32_t> chosen(be, *selection);
        const auto placed_gate = placed_weight(be, gate, type), placed_up = placed_weight(be, up, type);
        be.coarse_matmul(gates.view(), placed_x.in(), placed_gate.view);
        be.coarse_matmul(ups.view(), placed_x.in(), placed_up.view);
        const work_counters before = be.counters();
        be.finish_gated_up(y.view(), placed_x.in(), placed_gate.view, placed_up.view, gates.in().row(0),
                           ups.in().row(0), activation::silu, chosen.in());
        EXPECT_EQ((work_counters(be.counters()) - before).weight_bytes,
                  static_cast<std::uint64_t>(2 * expected.cols * length * bytes_of_32(type).finishing / 32));
        expect_near(y.values(), expected,
                    2 * gated_error(length, magnitude) +
                        5 * rounded_factor_error(length, token_unit(type), magnitude));
      });
      if (this->HasFatalFailure()) return;
    }
  });
}

TYPED_TEST(choice_operations, weights_without_planes_have_no_coarse_form) {
  TypeParam be = support::make_backend<TypeParam>(1);
  placed_matrix<TypeParam> x(be, 1, 32), y(be, 1, 3);
  const auto w = placed_weight(be, real_matrix(3, 32), dtype::f16);
  expect_parts(error_text([&] { be.coarse_matmul(y.view(), x.in(), w.view); }), "f16", "coarse form");
}

}  // namespace
}  // namespace corematching

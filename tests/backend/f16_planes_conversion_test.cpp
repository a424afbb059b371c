// SPDX-License-Identifier: Apache-2.0
// What host memory alone is asked for of f16 weights in two planes.
#include <gtest/gtest.h>

#include <random>

#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

TEST(f16_planes_in_host_memory, are_made_into_other_types_and_summed_by_rows) {
  std::mt19937 random(3);
  for (const int threads : thread_counts) {
    auto be = make_backend(threads);
    const real_matrix w = random_weight(70, 96, dtype::f16, random, 1);
    const auto placed = placed_weight(be, w, dtype::f16_planes);
    for (const dtype target : {dtype::f32, dtype::f16, dtype::f16_planes, dtype::q8_0})
      EXPECT_EQ(loaded(be, be.convert_weight(placed.view, target, false).view).values,
                rounded(w, target).values)
          << name_of(target);
    const real_matrix turned = loaded(be, be.convert_weight(placed.view, dtype::f32, true).view);
    for (index i = 0; i < w.rows; ++i)
      for (index j = 0; j < w.cols; ++j) ASSERT_EQ(turned(j, i), w(i, j));
    for (const index tokens : {index{1}, index{3}, few_tokens + 1})
      for (const twin::neurons& selection : selections(w.rows)) {
        const real_matrix x = random_matrix(tokens, twin::count_of(selection, w.rows), random);
        placed_matrix<test_backend> y(be, tokens, w.cols, {1, 3}), placed_x(be, x);
        placed_neurons<test_backend> chosen(be, selection);
        be.weighted_rows(y.view(), placed_x.in(), placed.view, chosen.view());
        expect_near(y.values(), twin::weighted_rows(x, w, selection),
                    dot_error(x.cols) + rounded_factor_error(x.cols, sum_unit(dtype::f16_planes)));
      }
  }
}

}  // namespace
}  // namespace corematching

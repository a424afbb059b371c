// SPDX-License-Identifier: Apache-2.0
// The exponentials of vectors against those of the standard library in double precision.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "corematching/backend/cpu/simd/exponential.hpp"

namespace corematching::cpu {
namespace {

template <class V>
class exponentials : public testing::Test {
 protected:
  static constexpr std::size_t lanes = sizeof(V) / sizeof(float);
  using numbers = std::array<float, lanes>;

  template <class Function>
  static numbers lane_by_lane(Function&& function, const numbers& x) {
    numbers y;
    function(V::load(x.data())).store(y.data());
    return y;
  }
  static constexpr auto exp2 = [](V x) { return cpu::exp2(x); };
  static constexpr auto exp = [](V x) { return cpu::exp(x); };

  /// Over lowest..highest in small steps.
  template <class Function, class Reference>
  static void expect_close(Function&& function, Reference&& reference, double lowest, double highest) {
    constexpr int steps = 1 << 18;
    for (int step = 0; step < steps; step += static_cast<int>(lanes)) {
      numbers x;
      for (std::size_t i = 0; i < lanes; ++i)
        x[i] = static_cast<float>(lowest + (highest - lowest) * (step + static_cast<int>(i)) / steps);
      const numbers y = lane_by_lane(function, x);
      for (std::size_t i = 0; i < lanes; ++i) {
        const double expected = reference(double{x[i]});
        ASSERT_NEAR(y[i], expected, 0x1p-22 * expected) << "at " << x[i];
      }
    }
  }
};
using vectors = testing::Types<f32x8, f32x16>;
TYPED_TEST_SUITE(exponentials, vectors);

TYPED_TEST(exponentials, are_within_their_bound_where_results_are_normal) {
  const auto two = [](double x) { return std::exp2(x); };
  const auto e = [](double x) { return std::exp(x); };
  TestFixture::expect_close(TestFixture::exp2, two, -125.4, 127.4);
  TestFixture::expect_close(TestFixture::exp2, two, -1.5, 1.5);
  TestFixture::expect_close(TestFixture::exp, e, -86.9, 88.3);
  TestFixture::expect_close(TestFixture::exp, e, -1.5, 1.5);
}

TYPED_TEST(exponentials, end_at_zero_and_infinity) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float largest = std::numeric_limits<float>::max();
  for (const float x : {-151.0f, -159.5f, -161.0f, -1e4f, -largest, -infinity}) {
    EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp2, {x})[0], 0) << x;
    EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp, {x})[0], 0) << x;
  }
  for (const float x : {128.0f, 129.0f, 1e4f, largest, infinity}) {
    EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp2, {x})[0], infinity) << x;
    EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp, {x})[0], infinity) << x;
  }
  EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp2, {0})[0], 1);
  EXPECT_EQ(TestFixture::lane_by_lane(TestFixture::exp, {0})[0], 1);
}

TYPED_TEST(exponentials, are_small_and_not_negative_where_results_are_not_normal) {
  for (float x = -151; x < -125; x += 0.01f) {
    const float y = TestFixture::lane_by_lane(TestFixture::exp2, {x})[0];
    ASSERT_GE(y, 0) << x;
    ASSERT_NEAR(y, std::exp2(double{x}), 0x1p-126) << x;
  }
}

TYPED_TEST(exponentials, keep_nan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(TestFixture::lane_by_lane(TestFixture::exp2, {nan})[0]));
  EXPECT_TRUE(std::isnan(TestFixture::lane_by_lane(TestFixture::exp, {nan})[0]));
}

}  // namespace
}  // namespace corematching::cpu

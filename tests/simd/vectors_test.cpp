// SPDX-License-Identifier: Apache-2.0
// The operations on vectors of floats, lane by lane against what they say they compute: the same for every
// instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>

#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "simd/lanes.hpp"

namespace corematching::cpu {
namespace {

template <class T>
class vectors_of_sixteen_bits : public testing::Test {};
using sixteen_bit_types = testing::Types<f16, bf16>;
TYPED_TEST_SUITE(vectors_of_sixteen_bits, sixteen_bit_types);

TYPED_TEST(vectors_of_sixteen_bits, are_widened_exactly) {
  for (unsigned first = 0; first < 0x10000; first += 8) {
    std::array<TypeParam, 8> values;
    for (unsigned i = 0; i < 8; ++i) values[i] = {static_cast<std::uint16_t>(first + i)};
    const floats wide = stored<floats>(f32x8::load(values.data()));
    for (std::size_t i = 0; i < 8; ++i) {
      const float expected = to_float(values[i]);
      ASSERT_EQ(std::isnan(wide[i]), std::isnan(expected)) << values[i].bits;
      if (!std::isnan(expected)) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(expected));
      }
    }
  }
}

TEST(f32x8, puts_binary16_numbers_together_from_their_bytes) {
  const auto same_bits = [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
           (std::isnan(a) && std::isnan(b));
  };
  for (unsigned upper = 0; upper < 256; ++upper)
    for (unsigned lower = 0; lower < 256; lower += 8) {
      std::array<std::uint8_t, 16> uppers, lowers;
      for (unsigned i = 0; i < 16; ++i) {
        uppers[i] = static_cast<std::uint8_t>(upper + 16 * i);
        lowers[i] = static_cast<std::uint8_t>(lower + i);
      }
      const auto expected = [&](std::size_t i, unsigned low) {
        return to_float(f16{static_cast<std::uint16_t>(uppers[i] << 8 | low)});
      };
      const floats both = stored<floats>(f32x8::load_bytes(uppers.data(), lowers.data())),
                   coarse = stored<floats>(f32x8::load_bytes(uppers.data(), lowers[0]));
      const auto sixteen = stored<std::array<float, 16>>(f32x16::load_bytes(uppers.data(), lowers[0]));
      for (std::size_t i = 0; i < 16; ++i) {
        ASSERT_TRUE(same_bits(sixteen[i], expected(i, lowers[0]))) << upper << ", " << lower;
        if (i >= 8) continue;
        ASSERT_TRUE(same_bits(both[i], expected(i, lowers[i]))) << upper << ", " << lower;
        ASSERT_TRUE(same_bits(coarse[i], expected(i, lowers[0]))) << upper << ", " << lower;
      }
    }
}

TEST(f32x16, adds_its_lanes) {
  std::array<float, 16> values;
  for (std::size_t i = 0; i < 16; ++i) values[i] = static_cast<float>(1 << i);
  EXPECT_EQ(f32x16::load(values.data()).sum(), 65535);
}

TEST(f32x8, widens_bytes_with_sign) {
  for (int first = -128; first < 128; first += 8) {
    std::array<std::int8_t, 8> values;
    for (int i = 0; i < 8; ++i) values[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(first + i);
    const floats wide = stored<floats>(f32x8::load(values.data()));
    for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(wide[i], static_cast<float>(values[i]));
  }
}

TEST(f32x8, is_narrowed_to_the_nearest_binary16) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    floats values;
    for (float& value : values) {
      const auto exponent = static_cast<int>(random() % 50) - 30;
      value = std::ldexp(static_cast<float>(random()) * 0x1p-32f, exponent) * (random() % 2 == 0 ? 1 : -1);
    }
    const auto narrow = stored<std::array<f16, 8>>(f32x8::load(values.data()));
    for (std::size_t i = 0; i < 8; ++i) ASSERT_EQ(narrow[i].bits, to_f16(values[i]).bits) << values[i];
  }
}

TEST(f32x8, broadcasts_a_binary16) {
  for (const float number : {0.0f, -1.5f, 65504.0f, 0x1p-24f}) {
    const floats lanes = stored<floats>(f32x8::broadcast(to_f16(number)));
    for (const float lane : lanes) EXPECT_EQ(lane, number);
  }
}

TEST(f32x8, adds_its_lanes_in_one_order) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (int round = 0; round < rounds; ++round) {
    floats l;
    for (float& lane : l) lane = normal(random);
    const float expected = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
    ASSERT_EQ(f32x8::load(l.data()).sum(), expected);
  }
}

TEST(f32x8, nan_is_the_largest_magnitude_in_any_lane) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::size_t lane = 0; lane < 8; ++lane) {
    floats values{1, -2, 3, -4, 5, -6, 7, -8};
    EXPECT_EQ(f32x8::load(values.data()).magnitude().largest_magnitude(), 8);
    values[lane] = -infinity;
    const f32x8 infinite = f32x8::load(values.data()).magnitude();
    EXPECT_EQ(infinite.largest_magnitude(), infinity);
    values[lane] = -std::numeric_limits<float>::quiet_NaN();
    const f32x8 nan = f32x8::load(values.data()).magnitude();
    EXPECT_TRUE(std::isnan(nan.largest_magnitude()));
    EXPECT_TRUE(std::isnan(stored<floats>(larger_magnitude(nan, infinite))[lane]));
    EXPECT_TRUE(std::isnan(stored<floats>(larger_magnitude(infinite, nan))[lane]));
  }
}

template <class V>
class vectors_of_floats : public testing::Test {};
using float_vectors = testing::Types<f32x8, f32x16>;
TYPED_TEST_SUITE(vectors_of_floats, float_vectors);

TYPED_TEST(vectors_of_floats, compute_lane_by_lane) {
  constexpr std::size_t lanes = sizeof(TypeParam) / sizeof(float);
  using numbers = std::array<float, lanes>;
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (int round = 0; round < rounds; ++round) {
    numbers a, b, n;
    for (float& lane : a) lane = normal(random);
    for (float& lane : b) lane = normal(random);
    for (float& lane : n) lane = static_cast<float>(static_cast<int>(random() % 200) - 100);
    const TypeParam x = TypeParam::load(a.data()), y = TypeParam::load(b.data());
    const auto sum = stored<numbers>(x + y), difference = stored<numbers>(x - y),
               product = stored<numbers>(x * y), quotient = stored<numbers>(x / y),
               larger_one = stored<numbers>(larger(x, y)), smaller_one = stored<numbers>(smaller(x, y)),
               scaled = stored<numbers>(scaled_by_power(x, TypeParam::load(n.data())));
    for (std::size_t i = 0; i < lanes; ++i) {
      ASSERT_EQ(sum[i], a[i] + b[i]);
      ASSERT_EQ(difference[i], a[i] - b[i]);
      ASSERT_EQ(product[i], a[i] * b[i]);
      ASSERT_EQ(quotient[i], a[i] / b[i]);
      ASSERT_EQ(larger_one[i], std::max(a[i], b[i]));
      ASSERT_EQ(smaller_one[i], std::min(a[i], b[i]));
      ASSERT_EQ(scaled[i], std::ldexp(a[i], static_cast<int>(n[i])));
    }
  }
}

TYPED_TEST(vectors_of_floats, round_to_even_and_keep_the_second_nan) {
  using numbers = std::array<float, sizeof(TypeParam) / sizeof(float)>;
  const numbers from{0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.75f, -1e9f};
  const numbers expected{0, 2, 2, 0, -2, -2, 127, -1e9f};
  EXPECT_EQ(stored<numbers>(TypeParam::load(from.data()).rounded()), expected);
  const TypeParam one = TypeParam::broadcast(1);
  const TypeParam nan = TypeParam::broadcast(std::numeric_limits<float>::quiet_NaN());
  for (const float lane : stored<numbers>(larger(one, nan))) EXPECT_TRUE(std::isnan(lane));
  for (const float lane : stored<numbers>(smaller(one, nan))) EXPECT_TRUE(std::isnan(lane));
}

TYPED_TEST(vectors_of_floats, powers_beyond_the_range_are_zero_and_infinity) {
  using numbers = std::array<float, sizeof(TypeParam) / sizeof(float)>;
  const TypeParam one = TypeParam::broadcast(1);
  for (const float lane : stored<numbers>(scaled_by_power(one, TypeParam::broadcast(-160))))
    EXPECT_EQ(lane, 0);
  for (const float lane : stored<numbers>(scaled_by_power(one, TypeParam::broadcast(128))))
    EXPECT_EQ(lane, std::numeric_limits<float>::infinity());
}

TEST(wide_f32, spreads_factors_to_the_lanes_of_blocks) {
  std::mt19937 random(14);
  const auto eight = random_lanes<floats>(random, -999, 999);
  const auto expect_spread = [&]<int Lanes>(std::integral_constant<int, Lanes>) {
    constexpr int blocks = int{wide_lanes} / Lanes;
    for (int first = 0; first + blocks <= 8; first += blocks) {
      const auto lanes = stored<wide_floats>(spread_to_blocks<Lanes>(eight.data(), first));
      for (int i = 0; i < int{wide_lanes}; ++i)
        EXPECT_EQ(lanes[static_cast<std::size_t>(i)], eight[static_cast<std::size_t>(first + i / Lanes)]);
    }
  };
  expect_spread(std::integral_constant<int, 2>());
  expect_spread(std::integral_constant<int, 4>());
  expect_spread(std::integral_constant<int, 8>());
}

TEST(vectors, eight_of_eight_elements_are_transposed) {
  std::array<f32x8, 8> rows;
  std::array<i16x16, 8> pairs;
  for (std::size_t i = 0; i < 8; ++i) {
    floats row;
    shorts pair;
    for (std::size_t j = 0; j < 8; ++j) {
      row[j] = static_cast<float>(8 * i + j);
      pair[2 * j] = static_cast<std::int16_t>(8 * i + j);
      pair[2 * j + 1] = static_cast<std::int16_t>(1000 + 8 * i + j);
    }
    rows[i] = f32x8::load(row.data());
    pairs[i] = i16x16::load(pair.data());
  }
  transpose(rows);
  transpose(pairs);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      EXPECT_EQ(stored<floats>(rows[i])[j], static_cast<float>(8 * j + i));
      EXPECT_EQ(stored<shorts>(pairs[i])[2 * j], static_cast<std::int16_t>(8 * j + i));
      EXPECT_EQ(stored<shorts>(pairs[i])[2 * j + 1], static_cast<std::int16_t>(1000 + 8 * j + i));
    }
}

TEST(wide_f32, multiplies_and_adds) {
  std::mt19937 random(8);
  for (int round = 0; round < rounds; ++round) {
    // Whole numbers, so that one rounding or two make no difference.
    const auto a = random_lanes<wide_floats>(random, -999, 999),
               b = random_lanes<wide_floats>(random, -999, 999),
               c = random_lanes<wide_floats>(random, -999, 999);
    const wide_f32 left = wide_f32::load(a.data()), right = wide_f32::load(b.data());
    const wide_floats sums = stored<wide_floats>(fma(left, right, wide_f32::load(c.data())));
    const wide_floats products = stored<wide_floats>(left * wide_f32::broadcast(b[0]));
    for (std::size_t i = 0; i < lanes_of_wide; ++i) {
      ASSERT_EQ(sums[i], a[i] * b[i] + c[i]);
      ASSERT_EQ(products[i], a[i] * b[0]);
    }
  }
}

}  // namespace
}  // namespace corematching::cpu

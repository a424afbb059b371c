// SPDX-License-Identifier: Apache-2.0
// The same for vectors of integers.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>

#include "corematching/backend/cpu/simd/f32x16.hpp"
#include "corematching/backend/cpu/simd/i16x32.hpp"
#include "corematching/backend/cpu/simd/transpose.hpp"
#include "corematching/backend/cpu/simd/widest.hpp"
#include "simd/lanes.hpp"

namespace corematching::cpu {
namespace {

TEST(i32x8, rounds_ties_to_even) {
  const floats values{0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.75f, -32766.75f};
  EXPECT_EQ(stored<ints>(i32x8::rounded(f32x8::load(values.data()))),
            (ints{0, 2, 2, 0, -2, -2, 127, -32767}));
}

TEST(i32x8, copies_halves_pairs_bytes_and_shifts) {
  for (const int value : {0, 1, -1, 127, -127, 4095, -4095}) {
    const auto low = static_cast<std::uint16_t>(value);
    const ints twice = stored<ints>(i32x8::broadcast(value).doubled());
    for (const std::int32_t lane : twice) EXPECT_EQ(lane, static_cast<std::int32_t>(low * 0x10001u));
    const ints shifted = stored<ints>(i32x8::broadcast(value).shifted_left<8>());
    for (const std::int32_t lane : shifted) EXPECT_EQ(lane, value * 256);
    const ints paired = stored<ints>(byte_pairs(i32x8::broadcast(value), i32x8::broadcast(-93)));
    for (const std::int32_t lane : paired) EXPECT_EQ(lane & 0xffff, (low & 0xff) | (-93 & 0xff) << 8);
  }
}

TEST(i16x16, multiplies_and_adds_pairs) {
  std::mt19937 random(3);
  for (int round = 0; round < rounds; ++round) {
    const shorts a = random_shorts(random), b = random_lanes<shorts>(random, -127, 127);
    const ints c = random_lanes<ints>(random, -1000, 1000);
    const f32x8 as_floats = [&] {
      floats lanes;
      std::copy(c.begin(), c.end(), lanes.begin());
      return f32x8::load(lanes.data());
    }();
    const ints sums = stored<ints>(
        multiply_add_pairs(i16x16::load(a.data()), i16x16::load(b.data()), i32x8::rounded(as_floats)));
    for (std::size_t i = 0; i < 8; ++i)
      ASSERT_EQ(sums[i], c[i] + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]);
  }
}

TEST(i16x16, multiplies_with_rounding) {
  std::mt19937 random(4);
  for (int round = 0; round < rounds; ++round) {
    const shorts a = random_shorts(random), b = random_shorts(random);
    const shorts products = stored<shorts>(multiply_high(i16x16::load(a.data()), i16x16::load(b.data())));
    for (std::size_t i = 0; i < 16; ++i) ASSERT_EQ(products[i], (a[i] * b[i] + (1 << 14)) >> 15);
  }
}

TEST(i16x16, parts_and_interleaves) {
  std::mt19937 random(5);
  const bytes from = random_bytes(random);
  const i16x16 both = i16x16::load_bytes(from.data());
  const shorts even = stored<shorts>(i16x16::even_bytes(both)), odd = stored<shorts>(i16x16::odd_bytes(both));
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(even[i], as_signed(from[2 * i]) * 256);
    EXPECT_EQ(odd[i], as_signed(from[2 * i + 1]) * 256);
  }
  const i16x16 a = i16x16::load(even.data()), b = i16x16::load(odd.data());
  const shorts first = stored<shorts>(interleaved_first(a, b)), last = stored<shorts>(interleaved_last(a, b));
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(first[2 * i], even[i]);
    EXPECT_EQ(first[2 * i + 1], odd[i]);
    EXPECT_EQ(last[2 * i], even[8 + i]);
    EXPECT_EQ(last[2 * i + 1], odd[8 + i]);
    EXPECT_EQ(stored<floats>(a.first_to_float())[i], even[i]);
    EXPECT_EQ(stored<floats>(a.last_to_float())[i], even[8 + i]);
  }
  const shorts pair = stored<shorts>(i16x16::broadcast_pair(-5 * 65536 + 7));
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(pair[i], i % 2 == 0 ? 7 : -5);
}

TEST(u8x16, is_widened_and_interleaved) {
  std::mt19937 random(6);
  const bytes from = random_bytes(random);
  const u8x16 a = u8x16::load(from.data()), b = u8x16::load(from.data() + 16);
  const shorts first = stored<shorts>(interleave_first(a, b).widen_unsigned());
  const shorts last = stored<shorts>(interleave_last(a, b).widen_signed());
  const shorts low = stored<shorts>(a.widen_unsigned().low_nibbles());
  const shorts high = stored<shorts>(a.widen_unsigned().high_nibbles());
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(first[i], from[i / 2 + i % 2 * 16]);
    EXPECT_EQ(last[i], as_signed(from[8 + i / 2 + i % 2 * 16]));
    EXPECT_EQ(low[i], from[i] & 15);
    EXPECT_EQ(high[i], from[i] >> 4);
  }
}

TEST(i16x16, moves_and_masks_bits) {
  std::mt19937 random(12);
  const shorts from = random_shorts(random), other = random_shorts(random);
  const i16x16 a = i16x16::load(from.data()), b = i16x16::load(other.data());
  const shorts left = stored<shorts>(a.shifted_left<4>()), right = stored<shorts>(a.shifted_right<12>()),
               both = stored<shorts>(a & b), either = stored<shorts>(a | b);
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(left[i], static_cast<std::int16_t>(from[i] * 16));
    EXPECT_EQ(right[i], static_cast<std::uint16_t>(from[i]) >> 12);
    EXPECT_EQ(both[i], static_cast<std::int16_t>(from[i] & other[i]));
    EXPECT_EQ(either[i], static_cast<std::int16_t>(from[i] | other[i]));
  }
}

TEST(i16x32, takes_bytes_apart) {
  using thirty_two = std::array<std::int16_t, 32>;
  std::mt19937 random(15);
  const bytes from = random_bytes(random);
  const i16x32 lanes = i16x32::load_widened(from.data());
  const auto widened = stored<thirty_two>(lanes), up = stored<thirty_two>(moved_bits<1, 2, 4>(lanes)),
             down = stored<thirty_two>(moved_bits<6, 2, 4>(lanes)),
             still = stored<thirty_two>(moved_bits<4, 1, 4>(lanes)),
             upper = stored<thirty_two>(lanes.shifted_right<4>()),
             less = stored<thirty_two>((lanes | i16x32::broadcast(256)) - i16x32::broadcast(300));
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(widened[i], from[i]);
    EXPECT_EQ(up[i], (from[i] >> 1 & 3) << 4);
    EXPECT_EQ(down[i], (from[i] >> 6) << 4);
    EXPECT_EQ(still[i], from[i] & 16);
    EXPECT_EQ(upper[i], from[i] >> 4);
    EXPECT_EQ(less[i], from[i] - 44);
  }
  EXPECT_EQ(stored<thirty_two>(i16x32::load(less.data())), less);
}

TEST(i16x32, widens_bytes_with_sign_and_sums_products) {
  using thirty_two = std::array<std::int16_t, 32>;
  std::mt19937 random(16);
  const bytes from = random_bytes(random);
  std::array<std::int8_t, 32> with_sign;
  thirty_two other;
  std::int32_t expected = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    with_sign[i] = static_cast<std::int8_t>(from[i]);
    other[i] = static_cast<std::int16_t>(1000 * static_cast<int>(i) - 16000);
    expected += with_sign[i] * other[i];
  }
  const i16x32 lanes = i16x32::load_widened(with_sign.data());
  const thirty_two widened = stored<thirty_two>(lanes);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(widened[i], with_sign[i]);
  std::array<std::int32_t, wide_lanes> sums;
  multiply_blocks(lanes, i16x32::load(other.data())).store(sums.data());
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), 0), expected);
}

#if COREMATCHING_HAS_AVX512

TEST(i16x32, puts_bytes_of_two_rows_side_by_side) {
  std::array<std::int8_t, 32> a, b;
  for (int i = 0; i < 32; ++i) {
    a[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(3 * i - 48);
    b[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(100 - 5 * i);
  }
  const auto [first, last] = i16x32::pairs(a.data(), b.data());
  const i16x32 factors = i16x32::broadcast_pair(-7 * 65536 + 300);
  const auto sums = in_order({multiply_add_pairs(first, factors, i32x16::zero()),
                              multiply_add_pairs(last, factors, i32x16::zero())});
  std::array<std::int32_t, 32> columns;
  sums[0].store(columns.data());
  sums[1].store(columns.data() + 16);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(columns[i], 300 * a[i] - 7 * b[i]) << i;
}

TEST(u8x64, takes_two_blocks_of_nibbles_apart_as_tokens_meet_them) {
  std::mt19937 random(17);
  const bytes from = random_bytes(random);
  std::array<std::int8_t, 64> token;
  std::array<std::int32_t, 2> expected{};
  for (std::size_t i = 0; i < 64; ++i) {
    token[i] = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
    const std::size_t block = i / 32, place = i % 32;
    const std::uint8_t both = from[16 * block + place % 16];
    expected[block] += token[i] * (place < 16 ? both & 15 : both >> 4);
  }
  std::array<std::int32_t, 16> lanes;
  multiply_add_quads(u8x64::nibbles_of_two(from.data()), i8x64::load_two(token.data()), i32x16::zero())
      .store(lanes.data());
  std::array<std::int32_t, 2> sums{};
  for (std::size_t i = 0; i < 16; ++i) sums[i % 2] += lanes[i];
  EXPECT_EQ(sums, expected);
  const float scales[] = {2, 5};
  std::array<float, 16> spread;
  f32x16::broadcast_two(scales).store(spread.data());
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(spread[i], scales[i % 2]);
}

#endif

template <class T>
class vectors_of_bytes : public testing::Test {};
#if COREMATCHING_HAS_AVX2
using byte_vectors = testing::Types<i8x32, u8x32, wide_u8>;
#else
using byte_vectors = testing::Types<i8x32>;
#endif
TYPED_TEST_SUITE(vectors_of_bytes, byte_vectors);

TYPED_TEST(vectors_of_bytes, move_mask_and_select_bits) {
  using numbers = std::array<std::uint8_t, sizeof(TypeParam)>;
  std::mt19937 random(13);
  const auto from = random_lanes<numbers>(random, 0, 255), other = random_lanes<numbers>(random, 0, 255);
  const TypeParam a = TypeParam::load(from.data()), b = TypeParam::load(other.data());
  const TypeParam mask = TypeParam::broadcast(std::uint8_t{0x3c});
  // Of the bits that enter from neighbouring bytes none is left.
  const auto left = stored<numbers>(a.template shifted_left<2>() & mask),
             right = stored<numbers>(a.template shifted_right<2>() & mask),
             selected = stored<numbers>(select_bits(mask, a, b));
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(left[i], from[i] << 2 & 0x3c);
    EXPECT_EQ(right[i], from[i] >> 2 & 0x3c);
    EXPECT_EQ(selected[i], (from[i] & 0x3c) | (other[i] & 0xc3));
  }
}

TEST(i8x32, multiplies_nibbles_with_bytes) {
  std::mt19937 random(7);
  for (int round = 0; round < rounds; ++round) {
    const bytes from = random_bytes(random);
    const auto factors = random_lanes<std::array<std::int8_t, 32>>(random, -127, 127);
    const i8x32 b = i8x32::load(factors.data()), nibbles = i8x32::nibbles(from.data());
    const i8x32 both = i8x32::interleaved(from.data(), from.data() + 16);
    const shorts low = stored<shorts>(multiply_byte_pairs(both.low_nibbles(), b));
    const shorts high = stored<shorts>(multiply_byte_pairs(both.high_nibbles(), b));
    for (std::size_t i = 0; i < 16; ++i) {
      ASSERT_EQ(low[i], (from[i] & 15) * factors[2 * i] + (from[16 + i] & 15) * factors[2 * i + 1]);
      ASSERT_EQ(high[i], (from[i] >> 4) * factors[2 * i] + (from[16 + i] >> 4) * factors[2 * i + 1]);
    }
    ints sums{};
    for (std::size_t i = 0; i < 32; ++i)
      sums[i / 4] += (i < 16 ? from[i] & 15 : from[i - 16] >> 4) * factors[i];
    ASSERT_EQ(stored<ints>(multiply_byte_quads(nibbles, b)), sums);
  }
}

TEST(wide_i16, multiplies_pairs) {
  std::mt19937 random(9);
  for (int round = 0; round < rounds; ++round) {
    const auto a = random_lanes<wide_shorts>(random, -127, 127);
    const auto b = random_lanes<wide_shorts>(random, -32767, 32767);
    const wide_i16 left = wide_i16::load(a.data()), right = wide_i16::load(b.data());
    const std::int32_t start = static_cast<std::int32_t>(random() % 2001) - 1000;
    const wide_i32 begun = multiply_add_pairs(left, right, wide_i32::broadcast(start));
    const wide_ints sums = stored<wide_ints>(begun);
    const wide_ints same = stored<wide_ints>(
        multiply_add_pairs(left, wide_i16::broadcast_pair(-5 * 65536 + 7), wide_i32::zero()));
    const wide_floats as_floats = stored<wide_floats>(begun.to_float());
    const wide_shorts high = stored<wide_shorts>(multiply_high(left, right));
    for (std::size_t i = 0; i < lanes_of_wide; ++i) {
      ASSERT_EQ(sums[i], start + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]);
      ASSERT_EQ(same[i], a[2 * i] * 7 + a[2 * i + 1] * -5);
      ASSERT_EQ(as_floats[i], static_cast<float>(sums[i]));
    }
    for (std::size_t i = 0; i < 2 * lanes_of_wide; ++i) ASSERT_EQ(high[i], (a[i] * b[i] + (1 << 14)) >> 15);
  }
}

#if COREMATCHING_HAS_VNNI

TEST(wide_u8, multiplies_quads_without_saturation) {
  std::mt19937 random(10);
  for (int round = 0; round < rounds; ++round) {
    // Every other round the largest products, whose pairs do not fit into 16 bits.
    const int lowest = round % 2 == 0 ? 0 : 255;
    const auto a = random_lanes<std::array<std::uint8_t, 4 * lanes_of_wide>>(random, lowest, 255);
    const auto b = random_lanes<std::array<std::int8_t, 4>>(random, round % 2 == 0 ? -127 : 127, 127);
    const std::int32_t start = static_cast<std::int32_t>(random() % 2000001) - 1000000;
    const wide_ints sums = stored<wide_ints>(
        multiply_add_quads(wide_u8::load(a.data()), wide_i8::broadcast(std::bit_cast<std::int32_t>(b)),
                           wide_i32::broadcast(start)));
    for (std::size_t i = 0; i < lanes_of_wide; ++i) {
      std::int32_t expected = start;
      for (std::size_t j = 0; j < 4; ++j) expected += a[4 * i + j] * b[j];
      ASSERT_EQ(sums[i], expected);
    }
  }
}

#endif

#if COREMATCHING_HAS_AVX2

TEST(u8x32, multiplies_pairs_and_adds_modulo_two_to_the_sixteenth) {
  std::mt19937 random(12);
  for (int round = 0; round < rounds; ++round) {
    const auto a = random_lanes<bytes>(random, round % 2 == 0 ? 0 : 31, 31);
    const auto b = random_lanes<std::array<std::int8_t, 32>>(random, round % 2 == 0 ? -127 : 127, 127);
    const auto start = random_lanes<shorts>(random, -32768, 32767);
    const shorts sums = stored<shorts>(
        multiply_add_pairs(u8x32::load(a.data()), i8x32::load(b.data()), i16x16::load(start.data())));
    for (std::size_t i = 0; i < 16; ++i)
      ASSERT_EQ(sums[i],
                static_cast<std::int16_t>(start[i] + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]));
  }
}

TEST(u8x32, adds_without_carry_into_the_next_byte) {
  std::mt19937 random(11);
  const bytes from = random_bytes(random);
  const bytes sums = stored<bytes>(u8x32::load(from.data()) + u8x32::broadcast(128));
  const bytes halves = stored<bytes>(u8x32::nibbles(from.data()));
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(sums[i], (from[i] + 128) % 256);
    EXPECT_EQ(halves[i], i < 16 ? from[i] & 15 : from[i - 16] >> 4);
  }
}

TEST(u8x32, four_are_interleaved) {
  std::array<u8x32, 4> rows;
  for (std::size_t r = 0; r < 4; ++r) {
    bytes row;
    for (std::size_t i = 0; i < 32; ++i) row[i] = static_cast<std::uint8_t>(4 * i + r);
    rows[r] = u8x32::load(row.data());
  }
  interleave(rows);
  for (std::size_t v = 0; v < 4; ++v)
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(stored<bytes>(rows[v])[i], 32 * v + i);
}

TEST(vectors, eight_of_eight_quads_of_bytes_are_transposed) {
  std::array<u8x32, 8> rows;
  for (std::size_t i = 0; i < 8; ++i) {
    bytes row;
    for (std::size_t j = 0; j < 32; ++j) row[j] = static_cast<std::uint8_t>(32 * i + j);
    rows[i] = u8x32::load(row.data());
  }
  transpose(rows);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 8; ++j)
      for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ(stored<bytes>(rows[i])[4 * j + k], 32 * j + 4 * i + k);
}

#endif

}  // namespace
}  // namespace corematching::cpu

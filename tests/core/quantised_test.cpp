// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/quantised.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace corematching {
namespace {

template <class Q>
std::vector<float> round_trip(const std::vector<float>& row) {
  const auto cols = static_cast<index>(row.size());
  std::vector<std::byte> stored(bytes_of(dtype_of<Q>, row.size()));
  quantise_row<Q>(row.data(), cols, stored.data(), 1, 0);
  std::vector<float> back(row.size());
  dequantise(quantised_row<Q>(stored.data(), cols), 0, cols, back.data());
  return back;
}

std::vector<float> random_row(std::size_t size, float magnitude) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> row(size);
  for (float& value : row) value = normal(random);
  return row;
}

TEST(block_formats, take_the_bytes_of_ggml) {
  EXPECT_EQ(bytes_of(dtype::q8_0, 4096), 4096u / 32 * 34);
  EXPECT_EQ(bytes_of(dtype::q4_0, 4096), 4096u / 32 * 18);
}

// d = max / 127 is rounded to binary16, so the step differs from max / 127 by 2^-11 of it.
TEST(q8_0_rows, lie_within_half_a_step_of_what_was_stored) {
  const std::vector<float> row = random_row(320, 0.02f), back = round_trip<q8_0>(row);
  for (std::size_t block = 0; block < row.size(); block += block_size) {
    float largest = 0;
    for (std::size_t i = 0; i < block_size; ++i) largest = std::max(largest, std::abs(row[block + i]));
    for (std::size_t i = 0; i < block_size; ++i)
      EXPECT_NEAR(back[block + i], row[block + i], largest / 127 * 0.5f + largest * 0x1p-11f) << block + i;
  }
}

// The scale has the sign of the largest element reversed, which then is -8 d exactly; the other end is 7 d,
// so an element of nearly the same size and the other sign may be a whole step off.
TEST(q4_0_rows, lie_within_a_step_of_what_was_stored) {
  const std::vector<float> row = random_row(320, 0.02f), back = round_trip<q4_0>(row);
  for (std::size_t block = 0; block < row.size(); block += block_size) {
    float extreme = 0;
    for (std::size_t i = 0; i < block_size; ++i)
      if (std::abs(row[block + i]) > std::abs(extreme)) extreme = row[block + i];
    const float step = std::abs(extreme) / 8;
    for (std::size_t i = 0; i < block_size; ++i) {
      const bool clipped = row[block + i] / -extreme > 7.5f / 8;
      EXPECT_NEAR(back[block + i], row[block + i], step * (clipped ? 1.0f : 0.5f) + step * 0x1p-8f)
          << block + i;
    }
  }
}

TEST(q8_0_rows, hold_what_ggml_writes) {
  std::vector<float> row(32);
  for (std::size_t i = 0; i < 32; ++i) row[i] = static_cast<float>(i) - 16.0f;  // d = 16 / 127
  std::array<std::byte, 34> stored;
  quantise_row<q8_0>(row.data(), 32, stored.data(), 1, 0);
  const quantised_row<q8_0> blocks(stored.data(), 32);
  EXPECT_EQ(blocks.scale(0)->bits, 0x3008);  // 0.1260, nearest to 0.12598
  EXPECT_EQ(static_cast<std::int8_t>(blocks.block(0)[0]), -127);
  EXPECT_EQ(static_cast<std::int8_t>(blocks.block(0)[15]),
            -8);  // -1 / d = -7.94
  EXPECT_EQ(static_cast<std::int8_t>(blocks.block(0)[16]), 0);
  EXPECT_EQ(static_cast<std::int8_t>(blocks.block(0)[31]),
            119);  // 15 / d = 119.06
}

TEST(q4_0_rows, hold_what_ggml_writes) {
  std::vector<float> row(32);
  for (std::size_t i = 0; i < 32; ++i) row[i] = static_cast<float>(i) - 16.0f;  // d = -16 / -8 = 2
  std::array<std::byte, 18> stored;
  quantise_row<q4_0>(row.data(), 32, stored.data(), 1, 0);
  const quantised_row<q4_0> blocks(stored.data(), 32);
  EXPECT_EQ(blocks.scale(0)->bits, 0x4000);
  EXPECT_EQ(blocks.block(0)[0], 0 | 8 << 4);  // -16 and 0
  EXPECT_EQ(blocks.block(0)[1],
            1 | 9 << 4);  // -15 / 2 + 8.5 = 1.0; 1 / 2 + 8.5 = 9.0
  EXPECT_EQ(blocks.block(0)[15],
            8 | 15 << 4);  // -1 / 2 + 8.5 = 8.0; 15 / 2 + 8.5 = 16, cut to 15
}

TEST(block_formats, keep_zeros) {
  const std::vector<float> zeros(64, 0.0f);
  EXPECT_EQ(round_trip<q8_0>(zeros), zeros);
  EXPECT_EQ(round_trip<q4_0>(zeros), zeros);
}

TEST(block_formats, read_part_of_a_row) {
  const std::vector<float> row = random_row(128, 1), all = round_trip<q4_0>(row);
  std::vector<std::byte> stored(bytes_of(dtype::q4_0, 128));
  quantise_row<q4_0>(row.data(), 128, stored.data(), 1, 0);
  std::vector<float> part(64);
  dequantise(quantised_row<q4_0>(stored.data(), 128), 32, 64, part.data());
  EXPECT_EQ(part, std::vector<float>(all.begin() + 32, all.begin() + 96));
}

/// A matrix of three rows as `Q`.
template <class Q>
struct three_rows {
  static constexpr index rows = 3;
  index cols;
  std::vector<std::byte> stored;
  three_rows(const std::vector<float>& values)
      : cols(std::ssize(values) / rows), stored(bytes_of(dtype_of<Q>, values.size())) {
    for (index i = 0; i < rows; ++i) quantise_row<Q>(values.data() + i * cols, cols, stored.data(), rows, i);
  }
  stored_view<> view() const { return {stored.data(), dtype_of<Q>, rows, cols, std::ssize(stored) / rows}; }
  std::vector<float> row(index i) const {
    std::vector<float> values(static_cast<std::size_t>(cols));
    dequantise(blocks_of_row<Q>(view(), i), 0, cols, values.data());
    return values;
  }
};

template <class Q>
class formats_in_planes : public testing::Test {};
using all_in_planes = testing::Types<q8_0_planes, q4_0_planes>;
TYPED_TEST_SUITE(formats_in_planes, all_in_planes);

TYPED_TEST(formats_in_planes, hold_the_values_of_the_whole_in_its_bytes) {
  using whole_type = typename TypeParam::whole;
  const std::vector<float> values = random_row(3 * 288, 0.7f);
  const three_rows<whole_type> whole(values);
  const three_rows<TypeParam> split(values);
  EXPECT_EQ(split.stored.size(), whole.stored.size());
  for (index i = 0; i < 3; ++i) EXPECT_EQ(split.row(i), whole.row(i)) << "row " << i;
  EXPECT_EQ(whole_of(dtype_of<TypeParam>), dtype_of<whole_type>);
  EXPECT_EQ(whole_of(dtype_of<whole_type>), dtype_of<whole_type>);
  EXPECT_TRUE(has_planes(dtype_of<TypeParam>) && !has_planes(dtype_of<whole_type>));
}

TYPED_TEST(formats_in_planes, say_the_middle_of_what_the_lower_one_leaves_open) {
  constexpr int step = 1 << TypeParam::plane_bits, offset = step * step / 2;
  const std::vector<float> values = random_row(3 * 64, 1);
  const three_rows<TypeParam> split(values);
  for (index i = 0; i < 3; ++i) {
    const auto row = blocks_of_row<TypeParam>(split.view(), i);
    std::vector<float> coarse(64);
    dequantise_upper(row, coarse.data());
    const std::vector<float> exact = split.row(i);
    for (index j = 0; j < 64; ++j) {
      const float scale = to_float(*row.scale(j / 32));
      const auto quant = static_cast<int>(std::lround(exact[static_cast<std::size_t>(j)] / scale));
      const int upper = (quant + offset) / step - step / 2;
      const float middle = static_cast<float>(step * upper) + static_cast<float>(step - 1) / 2;
      EXPECT_FLOAT_EQ(coarse[static_cast<std::size_t>(j)], middle * scale) << quant;
    }
  }
}

// Byte i of a plane holds quant i lowest: what packed files rely on.
TEST(q4_0_planes, split_each_quant_into_its_upper_and_lower_bits) {
  std::array<std::uint8_t, 16> quants;
  for (std::size_t i = 0; i < 16; ++i) quants[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  std::array<std::uint8_t, 8> upper, lower;
  q4_0_planes::split(quants.data(), upper.data(), lower.data());
  for (std::size_t i = 0; i < 32; ++i) {
    const int quant = i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
    EXPECT_EQ(upper[i % 8] >> 2 * (i / 8) & 3, quant >> 2) << i;
    EXPECT_EQ(lower[i % 8] >> 2 * (i / 8) & 3, quant & 3) << i;
  }
  EXPECT_EQ(q4_0_planes::merged(upper.data(), lower.data()), quants);
}

TEST(weight_rows, are_copied_with_all_of_their_parts) {
  const std::vector<float> values = random_row(3 * 96, 1);
  const std::vector<std::int32_t> which{0, 2};
  const auto check = [&]<class Q>() {
    const three_rows<Q> all(values);
    std::vector<std::byte> some(all.stored.size() / 3 * 2);
    copy_weight_rows(dtype_of<Q>, all.stored.data(), 3, all.cols, {which.data(), 2}, some.data());
    const stored_view<> view{some.data(), dtype_of<Q>, 2, all.cols, std::ssize(some) / 2};
    for (index i = 0; i < 2; ++i) {
      std::vector<float> row(96);
      dequantise(blocks_of_row<Q>(view, i), 0, 96, row.data());
      EXPECT_EQ(row, all.row(which[static_cast<std::size_t>(i)])) << name_of(dtype_of<Q>);
    }
  };
  check.operator()<q8_0>();
  check.operator()<q4_0>();
  check.operator()<q8_0_planes>();
  check.operator()<q4_0_planes>();
}

}  // namespace
}  // namespace corematching

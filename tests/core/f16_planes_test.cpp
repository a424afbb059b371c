// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/quantised.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

/// A matrix that stands in two planes, from the bits of its numbers.
struct bytes_in_planes {
  index rows, cols;
  std::vector<std::byte> stored;

  bytes_in_planes(index of_rows, index of_cols, const std::vector<std::uint16_t>& bits)
      : rows(of_rows), cols(of_cols), stored(2 * bits.size()) {
    for (std::size_t i = 0; i < bits.size(); ++i) {
      stored[i] = static_cast<std::byte>(bits[i] >> 8);
      stored[bits.size() + i] = static_cast<std::byte>(bits[i] & 255);
    }
  }
  stored_view<> view() const { return {stored.data(), dtype::f16_planes, rows, cols, 2 * cols}; }
  std::vector<float> row(index i) const {
    std::vector<float> values(static_cast<std::size_t>(cols));
    dequantise(blocks_of_row<f16_planes>(view(), i), 0, cols, values.data());
    return values;
  }
  std::vector<float> coarse_row(index i) const {
    std::vector<float> values(static_cast<std::size_t>(cols));
    dequantise_upper(blocks_of_row<f16_planes>(view(), i), values.data());
    return values;
  }
};

std::vector<std::uint16_t> all_patterns() {
  std::vector<std::uint16_t> all(0x10000);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

/// The same number, or NaN both.
bool are_alike(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

TEST(f16_planes, hold_every_binary16) {
  const bytes_in_planes planes(256, 256, all_patterns());
  for (index i = 0; i < 256; ++i) {
    const std::vector<float> row = planes.row(i);
    for (index j = 0; j < 256; ++j)
      ASSERT_TRUE(
          are_alike(row[static_cast<std::size_t>(j)], to_float(f16{static_cast<std::uint16_t>(256 * i + j)})))
          << 256 * i + j;
  }
}

TEST(f16_planes, store_what_f16_stores) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = to_float(f16{static_cast<std::uint16_t>(bits)});
    values.push_back(value);
    if (std::abs(value) < 60000) values.push_back(std::nextafter(value, 1e9f));  // to be rounded
  }
  for (const float value : {65504.0f, 65519.0f, 1e-8f, -1e-8f, 0.0f, -0.0f}) values.push_back(value);
  const auto cols = std::ssize(values);
  std::vector<std::byte> stored(2 * values.size());
  quantise_row<f16_planes>(values.data(), cols, stored.data(), 1, 0);
  for (std::size_t j = 0; j < values.size(); ++j) {
    const auto bits = static_cast<std::uint16_t>(std::to_integer<int>(stored[j]) << 8 |
                                                 std::to_integer<int>(stored[values.size() + j]));
    ASSERT_EQ(bits, to_f16(values[j]).bits) << values[j];
  }
}

// Sign, five bits of exponent and two of fraction stand in the upper byte.
TEST(f16_planes, are_read_without_the_lower_one_as_the_middle_of_what_it_leaves_open) {
  const bytes_in_planes planes(256, 256, all_patterns());
  for (index i = 0; i < 256; ++i) {
    const int exponent = static_cast<int>(i & 0x7c) >> 2, fraction = static_cast<int>(i & 3);
    const double sign = (i & 0x80) != 0 ? -1 : 1;
    const double middle = exponent == 0 ? sign * std::ldexp(fraction + 0.5, -16)
                                        : sign * std::ldexp(4 + fraction + 0.5, exponent - 17);
    for (const float coarse : planes.coarse_row(i)) {
      if (exponent == 31)
        ASSERT_TRUE(std::isnan(coarse)) << i;
      else
        ASSERT_EQ(double{coarse}, middle) << i;
    }
  }
}

TEST(f16_planes, lie_within_half_an_eighth_of_their_coarse_form) {
  const bytes_in_planes planes(256, 256, all_patterns());
  for (index i = 0; i < 256; ++i) {
    if ((i & 0x7c) == 0x7c || (i & 0x7c) == 0) continue;  // infinities, NaN; below the smallest normal number
    const std::vector<float> exact = planes.row(i), coarse = planes.coarse_row(i);
    for (std::size_t j = 0; j < exact.size(); ++j)
      ASSERT_LE(std::abs(coarse[j] - exact[j]), std::abs(exact[j]) / 8) << i << ", " << j;
  }
}

TEST(f16_planes, need_no_blocks_of_weights) {
  EXPECT_EQ(block_of(dtype::f16_planes), 1);
  EXPECT_FALSE(is_quantised(dtype::f16_planes) || is_element(dtype::f16_planes));
  EXPECT_TRUE(has_planes(dtype::f16_planes) && !has_planes(dtype::f16));
  EXPECT_EQ(whole_of(dtype::f16_planes), dtype::f16);
  EXPECT_EQ(bytes_of(dtype::f16_planes, 7), 14u);
  EXPECT_EQ(largest_of(dtype::f16_planes), largest_of(dtype::f16));

  const bytes_in_planes planes(2, 3, {0x3c00, 0xbc01, 0x0001, 0x8000, 0x7c00, 0x7bff});
  EXPECT_EQ(planes.row(0), (std::vector<float>{1, -(1 + 0x1p-10f), 0x1p-24f}));
  EXPECT_TRUE(std::signbit(planes.row(1)[0]));
  EXPECT_EQ(planes.row(1), (std::vector<float>{0, std::numeric_limits<float>::infinity(), 65504}));
}

// The exponent that lower bits belong to stands in the upper plane, which is read again with them.
TEST(f16_planes, take_both_planes_to_make_coarse_products_exact) {
  EXPECT_EQ(upper_bytes_of(dtype::f16_planes, 100), 100u);
  EXPECT_EQ(finishing_bytes_of(dtype::f16_planes, 100), 200u);
  EXPECT_EQ(upper_bytes_of(dtype::q8_0_planes, 64), 36u);
  EXPECT_EQ(finishing_bytes_of(dtype::q8_0_planes, 64), 32u);
}

TEST(f16_planes, are_no_elements) {
  const auto text = support::error_text([] { visit_elements(dtype::f16_planes, []<class T>() {}); });
  support::expect_parts(text, "f16_planes has planes where elements are needed");
}

TEST(f16_planes, are_copied_row_by_row_with_both_planes) {
  const bytes_in_planes all(3, 5,
                            {1, 2, 3, 4, 5, 256, 257, 258, 259, 260, 0x3c11, 0x3c12, 0x3c13, 0x3c14, 0x3c15});
  const std::vector<std::int32_t> which{0, 2};
  bytes_in_planes some(2, 5, std::vector<std::uint16_t>(10));
  copy_weight_rows(dtype::f16_planes, all.stored.data(), 3, 5, {which.data(), 2}, some.stored.data());
  EXPECT_EQ(some.row(0), all.row(0));
  EXPECT_EQ(some.row(1), all.row(2));
}

}  // namespace
}  // namespace corematching

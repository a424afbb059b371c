// SPDX-License-Identifier: Apache-2.0
// Blocks of q4_k, q5_k and q6_k against what the gguf package reads from them
// (tools/make_format_references.py).
#include "corematching/core/formats/super_blocks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/quantised.hpp"
#include "support/error_text.hpp"
#include "support/paths.hpp"

namespace corematching {
namespace {

std::vector<std::byte> bytes_in(const std::string& hexadecimal) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < hexadecimal.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hexadecimal.substr(i, 2), nullptr, 16)));
  return bytes;
}

/// All blocks of a format's file, as one row, and what they stand for.
template <super_format Q>
struct reference {
  std::vector<std::byte> row;
  std::vector<float> values;

  reference() {
    const std::string name = format_traits<Q>::name;
    std::ifstream file(support::test_directory() / "core/data" / (name + ".txt"));
    for (std::string stored, expected; file >> stored >> expected;) {
      const std::vector<std::byte> bytes = bytes_in(stored), numbers = bytes_in(expected);
      row.insert(row.end(), bytes.begin(), bytes.end());
      std::vector<float> of_block(numbers.size() / sizeof(float));
      std::memcpy(of_block.data(), numbers.data(), numbers.size());
      values.insert(values.end(), of_block.begin(), of_block.end());
    }
  }

  index cols() const { return static_cast<index>(values.size()); }
  quantised_row<Q> blocks() const { return {row.data(), cols()}; }
};

// Compared as bits: the sign of a zero counts as well.
std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

template <class Q>
class super_blocks_of : public testing::Test {};
using formats_in_super_blocks = testing::Types<q4_k, q5_k, q6_k>;
TYPED_TEST_SUITE(super_blocks_of, formats_in_super_blocks);

TYPED_TEST(super_blocks_of, hold_what_the_gguf_package_reads) {
  const reference<TypeParam> stored;
  ASSERT_EQ(stored.cols(), 9 * 256);
  ASSERT_EQ(stored.row.size(), bytes_of(dtype_of<TypeParam>, stored.values.size()));
  std::vector<float> widened(stored.values.size());
  dequantise(stored.blocks(), 0, stored.cols(), widened.data());
  EXPECT_EQ(bits_of(widened), bits_of(stored.values));
}

TYPED_TEST(super_blocks_of, are_read_from_any_piece_on) {
  const reference<TypeParam> stored;
  constexpr index piece = format_traits<TypeParam>::group;
  for (index first = 0; first < 2 * 256; first += piece)
    for (const index count : {piece, 3 * piece, 256 + piece}) {
      std::vector<float> part(static_cast<std::size_t>(count));
      dequantise(stored.blocks(), first, count, part.data());
      const auto begin = stored.values.begin() + first;
      EXPECT_EQ(bits_of(part), bits_of(std::vector<float>(begin, begin + count))) << first << ", " << count;
    }
}

TYPED_TEST(super_blocks_of, are_multiplied_and_nothing_is_rounded_to_them) {
  constexpr dtype type = dtype_of<TypeParam>;
  EXPECT_TRUE(is_quantised(type));
  EXPECT_EQ(block_of(type), 256);
  EXPECT_EQ(visit_dtype(type, []<class T>() { return dtype_of<T>; }), type);
  EXPECT_EQ(visit_weights(type, []<class T>() { return dtype_of<T>; }), type);
  EXPECT_EQ(std::ranges::count(weight_types, type), 0);
  EXPECT_EQ(
      support::error_text([] { visit_rounded(type, []<class T>() {}); }),
      "nothing is rounded to " + std::string(name_of(type)) + ", which holds quants of others as they are");
}

/// The reference's blocks as three rows in planes.
struct split_reference {
  static constexpr index rows = 3;
  reference<q4_k> whole;
  index cols = whole.cols() / rows;
  std::vector<std::byte> bytes = std::vector<std::byte>(whole.row.size());

  split_reference() {
    for (index i = 0; i < rows; ++i)
      split_row<q4_k_planes>({whole.row.data() + i * row_bytes(), cols}, bytes.data(), rows, i);
  }
  index row_bytes() const { return std::ssize(bytes) / rows; }
  quantised_row<q4_k_planes> row(index i) const {
    return blocks_of_row<q4_k_planes>({bytes.data(), dtype::q4_k_planes, rows, cols, row_bytes()}, i);
  }
};

TEST(q4_k_planes, hold_the_values_of_the_whole_in_its_bytes) {
  const split_reference split;
  EXPECT_EQ(split.bytes.size(), bytes_of(dtype::q4_k_planes, split.whole.values.size()));
  for (index i = 0; i < split_reference::rows; ++i)
    for (index first = 0; first < split.cols; first += 96) {
      std::vector<float> part(96);
      dequantise(split.row(i), first, 96, part.data());
      const auto begin = split.whole.values.begin() + i * split.cols + first;
      EXPECT_EQ(bits_of(part), bits_of(std::vector<float>(begin, begin + 96))) << i << ", " << first;
    }
}

TEST(q4_k_planes, say_the_middle_of_what_the_lower_one_leaves_open) {
  const split_reference split;
  std::vector<float> coarse(static_cast<std::size_t>(split.cols)), exact = coarse;
  for (index i = 0; i < split_reference::rows; ++i) {
    dequantise_upper(split.row(i), coarse.data());
    dequantise(split.row(i), 0, split.cols, exact.data());
    for (index j = 0; j < split.cols; ++j) {
      const auto [scale, minimum] = split.row(i).factors(j / 256).of_group(j % 256 / 32);
      const float quant = scale == 0 ? 0 : (exact[static_cast<std::size_t>(j)] + minimum) / scale;
      const float middle = scale * (4 * std::floor(std::round(quant) / 4) + 1.5f) - minimum;
      EXPECT_NEAR(coarse[static_cast<std::size_t>(j)], middle,
                  1e-5f * (std::abs(16 * scale) + std::abs(minimum)))
          << i << ", " << j;
    }
  }
}

TEST(super_blocks, take_the_bytes_that_files_have) {
  EXPECT_EQ(bytes_of(dtype::q4_k, 4096), 4096u / 256 * 144);
  EXPECT_EQ(bytes_of(dtype::q5_k, 4096), 4096u / 256 * 176);
  EXPECT_EQ(bytes_of(dtype::q6_k, 4096), 4096u / 256 * 210);
}

}  // namespace
}  // namespace corematching

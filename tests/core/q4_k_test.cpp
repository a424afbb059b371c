// SPDX-License-Identifier: Apache-2.0
// Blocks of q4_k against what the gguf package reads from them (tools/make_format_references.py).
#include "corematching/core/formats/q4_k.hpp"

#include <gtest/gtest.h>

#include <bit>
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

constexpr index block = format_traits<q4_k>::block, group = format_traits<q4_k>::group;

std::vector<std::byte> bytes_in(const std::string& hexadecimal) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < hexadecimal.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hexadecimal.substr(i, 2), nullptr, 16)));
  return bytes;
}

/// All blocks of the file, as one row, and what they stand for.
struct reference {
  std::vector<std::byte> row;
  std::vector<float> values;

  reference() {
    std::ifstream file(support::test_directory() / "core/data/q4_k.txt");
    for (std::string stored, expected; file >> stored >> expected;) {
      const std::vector<std::byte> bytes = bytes_in(stored), numbers = bytes_in(expected);
      row.insert(row.end(), bytes.begin(), bytes.end());
      std::vector<float> of_block(numbers.size() / sizeof(float));
      std::memcpy(of_block.data(), numbers.data(), numbers.size());
      values.insert(values.end(), of_block.begin(), of_block.end());
    }
  }

  index cols() const { return static_cast<index>(values.size()); }
  quantised_row<q4_k> blocks() const { return {row.data(), cols()}; }
};

// Compared as bits: the sign of a zero counts as well.
std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

TEST(q4_k_rows, hold_what_the_gguf_package_reads) {
  const reference stored;
  ASSERT_EQ(stored.cols(), 9 * block);
  ASSERT_EQ(stored.row.size(), bytes_of(dtype::q4_k, stored.values.size()));
  std::vector<float> widened(stored.values.size());
  dequantise(stored.blocks(), 0, stored.cols(), widened.data());
  EXPECT_EQ(bits_of(widened), bits_of(stored.values));
}

TEST(q4_k_rows, are_read_from_any_group_on) {
  const reference stored;
  for (index first = 0; first < 2 * block; first += group)
    for (const index count : {group, 3 * group, block + group}) {
      std::vector<float> part(static_cast<std::size_t>(count));
      dequantise(stored.blocks(), first, count, part.data());
      const auto begin = stored.values.begin() + first;
      EXPECT_EQ(bits_of(part), bits_of(std::vector<float>(begin, begin + count))) << first << ", " << count;
    }
}

TEST(q4_k, is_read_but_neither_stored_nor_multiplied) {
  EXPECT_TRUE(is_quantised(dtype::q4_k));
  EXPECT_EQ(block_of(dtype::q4_k), 256);
  EXPECT_EQ(bytes_of(dtype::q4_k, 4096), 4096u / 256 * 144);
  EXPECT_EQ(visit_dtype(dtype::q4_k, []<class T>() { return dtype_of<T>; }), dtype::q4_k);
  const auto text = support::error_text([] { visit_weights(dtype::q4_k, []<class T>() {}); });
  support::expect_parts(text, "q4_k is only read", "f32, f16, bf16, q8_0, q4_0");
}

}  // namespace
}  // namespace corematching

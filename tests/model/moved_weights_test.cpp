// SPDX-License-Identifier: Apache-2.0
// Blocks of GGUF files in our layouts stand for the same numbers, bit for bit.
#include "corematching/model/gguf/moved_weights.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "corematching/core/quantised.hpp"
#include "support/error_text.hpp"
#include "support/random_blocks.hpp"

namespace corematching {
namespace {

using support::block_types;
using support::blocks_matrix;

/// The bits of the row-major values of a stored matrix.
std::vector<std::uint32_t> stored_bits(const std::vector<std::byte>& memory, dtype type, index rows,
                                       index cols) {
  const stored_view<> view{memory.data(), type, rows, cols,
                           static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)))};
  std::vector<float> row(static_cast<std::size_t>(cols));
  std::vector<std::uint32_t> bits;
  for (index i = 0; i < rows; ++i) {
    visit_dtype(type, [&]<class T>() {
      if constexpr (block_format<T>) dequantise(blocks_of_row<T>(view, i), 0, cols, row.data());
    });
    for (const float value : row) bits.push_back(std::bit_cast<std::uint32_t>(value));
  }
  return bits;
}

constexpr index test_rows = 96, test_cols = 768;  // three super-blocks in each row

TEST(moved_rows, stand_for_the_same_numbers) {
  std::mt19937 random(1);
  for (const auto& of : block_types)
    for (const dtype type : {row_type_of(of.type), dtype::wide_16m})
      for (const int threads : {1, 3}) {
        SCOPED_TRACE(std::string(io::name_of(of.type)) + " as " + name_of(type));
        const blocks_matrix from(of, test_rows, test_cols, random);
        std::vector<std::byte> memory(stored_bytes(type, test_rows, test_cols));
        const auto reversed = [](index i) { return test_rows - 1 - i; };
        move_rows(from.view(), type, memory.data(), threads, reversed);
        const std::vector<float> values = from.values();
        std::vector<std::uint32_t> expected;
        for (index i = 0; i < test_rows; ++i)
          for (index j = 0; j < test_cols; ++j)
            expected.push_back(
                std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(reversed(i) * test_cols + j)]));
        EXPECT_EQ(stored_bits(memory, type, test_rows, test_cols), expected);
      }
}

TEST(moved_rows, keep_quants_and_scales_of_types_that_are_ours) {
  EXPECT_EQ(row_type_of(io::ggml_type::q8_0), dtype::q8_0);
  EXPECT_EQ(row_type_of(io::ggml_type::q5_0), dtype::q8_0);
  EXPECT_EQ(row_type_of(io::ggml_type::iq4_nl), dtype::q8_0);
  EXPECT_EQ(row_type_of(io::ggml_type::q4_0), dtype::q4_0);
  std::mt19937 random(2);
  const blocks_matrix from(block_types[0], 1, 96, random);  // q4_0
  std::vector<std::byte> memory(stored_bytes(dtype::q4_0, 1, 96));
  move_rows(from.view(), dtype::q4_0, memory.data(), 1, [](index i) { return i; });
  const quantised_row<q4_0> row(memory.data(), 96);
  for (index b = 0; b < 3; ++b) {
    const auto* const block = reinterpret_cast<const std::uint8_t*>(from.bytes.data()) + b * 18;
    EXPECT_EQ(std::memcmp(row.scale(b), block, 2), 0);
    EXPECT_EQ(std::memcmp(row.block(b), block + 2, 16), 0);
  }
}

TEST(moved_neurons, are_the_transposed_of_the_same_numbers) {
  std::mt19937 random(3);
  for (const auto& of : block_types)
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(io::name_of(of.type));
      const blocks_matrix from(of, test_rows, test_cols, random);
      const dtype type = neuron_type_of(of.type);
      EXPECT_TRUE(shares_scales(type));
      std::vector<std::byte> memory(stored_bytes(type, test_cols, test_rows));
      move_neurons(from.view(), memory.data(), threads);
      const std::vector<float> values = from.values();
      std::vector<std::uint32_t> expected;
      for (index n = 0; n < test_cols; ++n)
        for (index j = 0; j < test_rows; ++j)
          expected.push_back(
              std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(j * test_cols + n)]));
      EXPECT_EQ(stored_bits(memory, type, test_cols, test_rows), expected);
    }
}

TEST(moved_weights, are_refused_where_a_scale_is_no_number) {
  std::mt19937 random(4);
  blocks_matrix from(block_types[4], 2, 64, random);  // q8_0
  from.bytes[34] = '\xff';
  from.bytes[35] = '\x7f';
  std::vector<std::byte> memory(stored_bytes(dtype::down_32, 64, 32));
  EXPECT_EQ(support::error_text(
                [&] { move_rows(from.view(), dtype::q8_0, memory.data(), 1, [](index i) { return i; }); }),
            "it holds a scale that is no finite number");
  EXPECT_EQ(support::error_text([&] { row_type_of(io::ggml_type{18}); }).substr(0, 19),
            "IQ3_XXS is not read");
}

}  // namespace
}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// Blocks of ggml's types against what the gguf package reads from them (tools/make_format_references.py).
#include "corematching/io/ggml_blocks.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "corematching/io/ggml_super_blocks.hpp"
#include "corematching/io/ggml_type.hpp"
#include "support/paths.hpp"

namespace corematching::io {
namespace {

std::vector<std::uint8_t> hexadecimal(const std::string& text) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

/// Expects every stored block of the type to stand for the stored values, compared as bits.
template <class Block>
void expect_reference(const std::string& name, ggml_type type) {
  SCOPED_TRACE(name);
  EXPECT_EQ(facts_of(type).block, Block::block);
  EXPECT_EQ(facts_of(type).bytes, Block::bytes);
  std::ifstream file(support::test_directory() / "core/data" / (name + ".txt"));
  int blocks = 0;
  for (std::string stored, expected; file >> stored >> expected; ++blocks) {
    const auto block = hexadecimal(stored), numbers = hexadecimal(expected);
    ASSERT_EQ(block.size(), std::size_t{Block::bytes});
    ASSERT_EQ(numbers.size(), sizeof(float) * Block::block);
    for (index piece = 0; piece < Block::block / block_size; ++piece) {
      widened_block to;
      Block::unpack(block.data(), piece, to);
      for (index i = 0; i < block_size; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, numbers.data() + (piece * block_size + i) * index{sizeof bits}, sizeof bits);
        const float value = to.scales[i / 16] * static_cast<float>(to.quants[i]) + to.minima[i / 16];
        ASSERT_EQ(std::bit_cast<std::uint32_t>(value), bits)
            << "block " << blocks << ", element " << piece * block_size + i << ": " << value << " and "
            << std::bit_cast<float>(bits);
      }
      if (!Block::has_minimum) {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(to.minima[0]), 0x80000000u);
      }
      if (Block::group == block_size) {
        EXPECT_EQ(to.scales[0], to.scales[1]);
        EXPECT_EQ(to.minima[0], to.minima[1]);
      }
    }
  }
  EXPECT_EQ(blocks, 9);
}

TEST(ggml_blocks, stand_for_what_the_gguf_package_reads) {
  expect_reference<ggml_q4_0>("q4_0", ggml_type::q4_0);
  expect_reference<ggml_q4_1>("q4_1", ggml_type::q4_1);
  expect_reference<ggml_q5_0>("q5_0", ggml_type::q5_0);
  expect_reference<ggml_q5_1>("q5_1", ggml_type::q5_1);
  expect_reference<ggml_q8_0>("q8_0", ggml_type::q8_0);
  expect_reference<ggml_iq4_nl>("iq4_nl", ggml_type::iq4_nl);
}

TEST(ggml_super_blocks, stand_for_what_the_gguf_package_reads) {
  expect_reference<ggml_q2_k>("q2_k", ggml_type::q2_k);
  expect_reference<ggml_q3_k>("q3_k", ggml_type::q3_k);
  expect_reference<ggml_q4_k>("q4_k", ggml_type::q4_k);
  expect_reference<ggml_q5_k>("q5_k", ggml_type::q5_k);
  expect_reference<ggml_q6_k>("q6_k", ggml_type::q6_k);
  expect_reference<ggml_iq4_xs>("iq4_xs", ggml_type::iq4_xs);
}

}  // namespace
}  // namespace corematching::io

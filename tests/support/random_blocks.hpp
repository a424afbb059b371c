// SPDX-License-Identifier: Apache-2.0
// Quantised tensors as GGUF files store them, with random blocks, and what they stand for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/io/ggml_type.hpp"
#include "corematching/model/gguf/moved_weights.hpp"

namespace support {

struct block_type {
  corematching::io::ggml_type type;
  std::array<int, 2> numbers;  // where a block has binary16 numbers; -1: nowhere
};

inline constexpr std::array<block_type, 12> block_types{{{corematching::io::ggml_type::q4_0, {0, -1}},
                                                         {corematching::io::ggml_type::q4_1, {0, 2}},
                                                         {corematching::io::ggml_type::q5_0, {0, -1}},
                                                         {corematching::io::ggml_type::q5_1, {0, 2}},
                                                         {corematching::io::ggml_type::q8_0, {0, -1}},
                                                         {corematching::io::ggml_type::q2_k, {80, 82}},
                                                         {corematching::io::ggml_type::q3_k, {108, -1}},
                                                         {corematching::io::ggml_type::q4_k, {0, 2}},
                                                         {corematching::io::ggml_type::q5_k, {0, 2}},
                                                         {corematching::io::ggml_type::q6_k, {208, -1}},
                                                         {corematching::io::ggml_type::iq4_nl, {0, -1}},
                                                         {corematching::io::ggml_type::iq4_xs, {0, -1}}}};

/// A matrix [rows, cols] of random blocks of a type, weights of the order of 0.1 in it.
struct blocks_matrix {
  corematching::io::ggml_type type;
  corematching::index rows, cols;
  std::string bytes;

  blocks_matrix(const block_type& of, corematching::index row_count, corematching::index length,
                std::mt19937& random)
      : type(of.type), rows(row_count), cols(length) {
    const auto& facts = corematching::io::facts_of(type);
    const auto blocks = static_cast<std::size_t>(rows * cols) / facts.block;
    bytes.resize(blocks * facts.bytes);
    for (char& byte : bytes) byte = static_cast<char>(random());
    // Scales of groups are larger by up to 63.
    const float unit = facts.block > 32 ? 2e-4f : 6e-3f;
    std::uniform_real_distribution<float> factor(0.5f * unit, unit);
    for (std::size_t b = 0; b < blocks; ++b)
      for (const int place : of.numbers) {
        if (place < 0) continue;
        const corematching::f16 number =
            corematching::to_f16(place == of.numbers[0] ? factor(random) : -factor(random));
        std::memcpy(bytes.data() + b * facts.bytes + static_cast<std::size_t>(place), &number, sizeof number);
      }
  }

  corematching::ggml_matrix view() const {
    return {reinterpret_cast<const std::byte*>(bytes.data()), type, rows, cols};
  }

  /// All weights, row by row.
  std::vector<float> values() const {
    std::vector<float> result;
    corematching::visit_ggml_blocks(type, [&]<class Block>() {
      corematching::widened_block piece;
      for (std::size_t at = 0; at < bytes.size(); at += std::size_t{Block::bytes})
        for (corematching::index p = 0; p < Block::block / corematching::block_size; ++p) {
          Block::unpack(reinterpret_cast<const std::uint8_t*>(bytes.data()) + at, p, piece);
          for (corematching::index i = 0; i < corematching::block_size; ++i)
            result.push_back(piece.scales[i / 16] * static_cast<float>(piece.quants[i]) +
                             piece.minima[i / 16]);
        }
    });
    return result;
  }
};

}  // namespace support

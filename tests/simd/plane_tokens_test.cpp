// SPDX-License-Identifier: Apache-2.0
// Tokens in the order in which planes give quants: products with one plane and with both, exactly, for every
// instruction set.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "corematching/backend/cpu/decode/plane_tokens.hpp"

namespace corematching::cpu {
namespace {

template <class Quant, int Bits>
struct of_planes {
  using quant = Quant;
  static constexpr int bits = Bits;
  using part = detail::plane_token<Quant, Bits>;
};

template <class T>
class plane_tokens_of : public testing::Test {};
using kinds = testing::Types<of_planes<std::int16_t, 4>, of_planes<std::int8_t, 2>>;
TYPED_TEST_SUITE(plane_tokens_of, kinds);

/// The bits of quant `i` of the vector.
template <int Bits>
int bits_of(const std::vector<std::uint8_t>& plane, std::size_t i) {
  constexpr std::size_t half = 4 * Bits;
  const std::size_t in_block = i % 32;
  return plane[i / 32 * half + in_block % half] >> Bits * (in_block / half) & ((1 << Bits) - 1);
}

TYPED_TEST(plane_tokens_of, multiply_exactly_and_keep_blocks_apart) {
  using part = typename TypeParam::part;
  constexpr int bits = TypeParam::bits;
  constexpr auto count = static_cast<std::size_t>(part::bytes * 8 / bits);
  constexpr std::size_t blocks = count / 32, lanes = sizeof(wide_i32) / 4 / blocks;
  constexpr int largest = static_cast<int>(detail::largest_plane_quant<typename TypeParam::quant>);
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    const bool extreme = round < 4;  // of either sign, with all bits set: no sum may saturate
    std::vector<std::uint8_t> upper(part::bytes), lower(part::bytes);
    for (auto* plane : {&upper, &lower})
      for (std::uint8_t& byte : *plane) byte = static_cast<std::uint8_t>(extreme ? 255 : random());
    std::vector<typename TypeParam::quant> quants(count);
    std::uniform_int_distribution<int> uniform(-largest, largest);
    for (auto& quant : quants)
      quant = static_cast<typename TypeParam::quant>(extreme ? (round % 2 == 0 ? largest : -largest)
                                                             : uniform(random));
    std::vector<typename part::stored> arranged(part::size);
    part::arrange(quants.data(), arranged.data());
    const part token(arranged.data());
    std::array<std::int32_t, sizeof(wide_i32) / 4> of_upper, of_both;
    token.times(part::taken_apart(upper.data())).store(of_upper.data());
    token.times(part::taken_apart(upper.data(), lower.data())).store(of_both.data());
    for (std::size_t b = 0; b < blocks; ++b) {
      std::int32_t upper_sum = 0, both_sum = 0, upper_expected = 0, both_expected = 0;
      for (std::size_t lane = b * lanes; lane < (b + 1) * lanes; ++lane) {
        upper_sum += of_upper[lane];
        both_sum += of_both[lane];
      }
      for (std::size_t i = 32 * b; i < 32 * (b + 1); ++i) {
        upper_expected += bits_of<bits>(upper, i) * quants[i];
        both_expected += (bits_of<bits>(upper, i) << bits | bits_of<bits>(lower, i)) * quants[i];
      }
      ASSERT_EQ(upper_sum, upper_expected);
      ASSERT_EQ(both_sum, both_expected);
    }
  }
}

TYPED_TEST(plane_tokens_of, fill_the_last_group_with_zeros) {
  std::vector<float> x(3 * 32);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& value : x) value = normal(random);
  plane_tokens<typename TypeParam::quant, TypeParam::bits> tokens;
  // What an earlier, longer token left behind is no part of a later one.
  std::vector<float> longer(8 * 32, 1.0f);
  tokens.assign({longer.data(), 1, 8 * 32, 8 * 32});
  tokens.assign({x.data(), 1, 3 * 32, 3 * 32});
  const auto token = tokens[0];
  for (std::size_t b = 0; b < 8; ++b) {
    EXPECT_EQ(token.scales[b] > 0, b < 3);
    float sum = 0;
    if (b < 3)
      for (std::size_t i = 0; i < 32; ++i)
        sum += token.scales[b] * std::nearbyint(x[32 * b + i] / token.scales[b]);
    EXPECT_NEAR(token.sums[b], sum, 1e-4f * 32 * 4);
  }
}

}  // namespace
}  // namespace corematching::cpu

// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/prompt_tokens.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <vector>

namespace corematching {
namespace {

constexpr token_kind text = token_kind::text, image = token_kind::image;

TEST(prompt_tokens, are_found_by_original_position_when_others_are_gone) {
  const prompt_tokens tokens(100, std::vector{text, image, image, image, text, text});
  EXPECT_EQ(tokens.kind_of(103), image);
  EXPECT_EQ(tokens.kind_of(104), text);
  const std::vector<std::int32_t> alive{100, 102, 104, 105};
  const index_view<> positions{alive.data(), std::ssize(alive)};
  EXPECT_EQ(tokens.rows_of(image, positions), (std::vector<std::int32_t>{1}));
  EXPECT_EQ(tokens.rows_of(text, positions), (std::vector<std::int32_t>{0, 2, 3}));
}

TEST(prompt_tokens, are_counted_from_either_end) {
  const prompt_tokens tokens(7, std::vector{text, image, text});
  EXPECT_EQ(tokens.place(1), 1);
  EXPECT_EQ(tokens.place(-1), 2);
  EXPECT_EQ(tokens.place(-4), -1);
  EXPECT_EQ(tokens.position_of(2), 9);
  EXPECT_EQ(tokens.kind_at(1), image);
}

TEST(prompt_tokens, know_which_kinds_there_are) {
  EXPECT_FALSE(prompt_tokens().has(text));
  EXPECT_EQ(prompt_tokens().size(), 0);
  EXPECT_TRUE(prompt_tokens(0, std::vector{image}).has(image));
  EXPECT_FALSE(prompt_tokens(0, std::vector{image}).has(text));
}

}  // namespace
}  // namespace corematching

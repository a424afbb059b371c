// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/prompt_tokens.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <numeric>
#include <vector>

#include "support/error_text.hpp"

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

TEST(prompt_tokens, are_of_one_picture_or_of_several) {
  using rows = prompt_tokens::rows;
  const std::vector kinds{text, image, image, image, text, image, image, text, text};
  std::vector<std::int32_t> all(kinds.size());
  std::iota(all.begin(), all.end(), 100);
  const index_view<> positions{all.data(), std::ssize(all)};
  EXPECT_EQ(prompt_tokens(100, kinds).rows_of_pictures(positions), (std::vector<rows>{{1, 2, 3, 5, 6}}));
  const prompt_tokens tokens(100, kinds, std::vector<index>{1, 2, 2});
  EXPECT_EQ(tokens.rows_of_pictures(positions), (std::vector<rows>{{1}, {2, 3}, {5, 6}}));
  const std::vector<std::int32_t> alive{100, 103, 104, 106, 108};
  EXPECT_EQ(tokens.rows_of_pictures({alive.data(), std::ssize(alive)}), (std::vector<rows>{{1}, {3}}))
      << "a picture of which nothing is left is none";
}

TEST(prompt_tokens, of_text_stand_behind_the_last_picture_or_not) {
  using rows = prompt_tokens::rows;
  const prompt_tokens tokens(7, std::vector{text, image, text, image, text, text});
  const std::vector<std::int32_t> alive{7, 8, 9, 11, 12};
  EXPECT_EQ(tokens.rows_behind_pictures({alive.data(), std::ssize(alive)}), (rows{3, 4}));
  const prompt_tokens no_picture(7, std::vector{text, text});
  EXPECT_EQ(no_picture.rows_behind_pictures({alive.data(), 1}), rows{0});
}

TEST(prompt_tokens, refuse_pictures_of_other_sizes_than_theirs) {
  const std::vector kinds{text, image, image, text};
  const auto refusal = [&](const std::vector<index>& sizes) {
    return support::error_text([&] { prompt_tokens(0, kinds, sizes); });
  };
  support::expect_parts(refusal({1}), "pictures", "have 1 image tokens", "has 2");
  support::expect_parts(refusal({2, 1}), "have 3 image tokens", "has 2");
  support::expect_parts(refusal({2, 0}), "0 image tokens");
}

TEST(prompt_tokens, know_which_kinds_there_are) {
  EXPECT_FALSE(prompt_tokens().has(text));
  EXPECT_EQ(prompt_tokens().size(), 0);
  EXPECT_TRUE(prompt_tokens(0, std::vector{image}).has(image));
  EXPECT_FALSE(prompt_tokens(0, std::vector{image}).has(text));
}

}  // namespace
}  // namespace corematching

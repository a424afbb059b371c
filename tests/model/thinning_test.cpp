// SPDX-License-Identifier: Apache-2.0
// Image tokens that never enter the decoder: which they are, and what is left of the prompt.
#include "corematching/model/llava/thinning.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "select/slow_selectors.hpp"
#include "support/conversation.hpp"
#include "support/error_text.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using indices = std::vector<std::int32_t>;
namespace slow = select::slow;

constexpr select::keep_options keep_three{.rule = select::keep_rule::top_k, .count = 3};
constexpr index width = 24;

class thinning : public testing::Test {
 protected:
  B be = support::make_backend<B>(2);

  /// Features of so many tokens, each of which is like one of four others but for a little.
  matrix<B> features(index tokens) {
    std::mt19937 random(91);
    std::normal_distribution<float> normal;
    std::vector<float> kinds(4 * width), values;
    for (float& value : kinds) value = normal(random);
    for (index token = 0; token < tokens; ++token)
      for (index j = 0; j < width; ++j)
        values.push_back(kinds[static_cast<std::size_t>(token * 3 % 4 * width + j)] + 0.05f * normal(random));
    host_ = values;
    matrix<B> made(be, tokens, width);
    upload_values(be, made.view(), {values.data(), std::ssize(values)});
    return made;
  }
  std::vector<float> host(const matrix<B>& m) {
    std::vector<float> values;
    download_values(be, m.view(), values);
    return values;
  }
  /// Rows of features().
  std::vector<float> rows(const indices& which) const {
    std::vector<float> values;
    for (const std::int32_t row : which)
      values.insert(values.end(), host_.begin() + row * width, host_.begin() + (row + 1) * width);
    return values;
  }

  static multimodal_prompt prompt_of(std::string_view letters, std::vector<index> picture_sizes) {
    multimodal_prompt prompt{{}, support::kinds_of(letters), std::move(picture_sizes)};
    for (std::size_t i = 0; i < letters.size(); ++i) prompt.ids.push_back(static_cast<std::int32_t>(100 + i));
    return prompt;
  }

 private:
  std::vector<float> host_;
};

TEST_F(thinning, leaves_one_of_each_kind_where_so_many_stay) {
  const auto image = features(12);
  const select::keep_options four{.rule = select::keep_rule::top_k, .count = 4};
  const auto left =
      thin(be, prompt_of("ttiiiiiiiiiiiit", {12}), image.view(), 0, {thinning_criterion::duplication, four});
  ASSERT_EQ(left.places.size(), 3u + 4u);
  std::vector<int> kinds(4);
  for (std::size_t i = 2; i < 6; ++i) ++kinds[static_cast<std::size_t>((left.places[i] - 2) * 3 % 4)];
  EXPECT_EQ(kinds, (std::vector<int>{1, 1, 1, 1}));
}

TEST_F(thinning, draws_by_seed_and_position) {
  const auto image = features(10);
  const thinning_config config{thinning_criterion::random, keep_three, 5};
  const auto left = thin(be, prompt_of("tiiiiiiiiiit", {10}), image.view(), 40, config);
  std::vector<std::int32_t> scores;
  for (std::int32_t i = 0; i < 10; ++i)
    scores.push_back(select::random_score(5, select::before_all_layers, 41 + i));
  indices expected{0};
  for (const std::int32_t row : slow::core_tokens(scores, keep_three)) expected.push_back(1 + row);
  expected.push_back(11);
  EXPECT_EQ(left.places, expected);
}

TEST_F(thinning, keeps_the_text_and_what_belongs_to_each_row) {
  const auto image = features(12);
  const multimodal_prompt prompt = prompt_of("tiiiiitiiiiiiitt", {5, 7});
  for (const thinning_criterion criterion : {thinning_criterion::duplication, thinning_criterion::random})
    for (const auto& keep :
         {keep_three, select::keep_options{.rule = select::keep_rule::ratio, .ratio = 0.5}}) {
      const auto left = thin(be, prompt, image.view(), 0, {criterion, keep});
      const index of_one = keep.rule == select::keep_rule::top_k ? 3 : 2, of_other = 3;
      EXPECT_EQ(left.prompt.picture_sizes, (std::vector<index>{of_one, of_other})) << "of each picture";
      EXPECT_EQ(left.prompt.size(), 4 + of_one + of_other);
      EXPECT_EQ(left.prompt.image_tokens(), of_one + of_other);
      ASSERT_EQ(std::ssize(left.places), left.prompt.size());
      EXPECT_TRUE(std::ranges::is_sorted(left.places));
      indices kept;
      for (std::size_t row = 0; row < left.places.size(); ++row) {
        const auto place = static_cast<std::size_t>(left.places[row]);
        EXPECT_EQ(left.prompt.ids[row], prompt.ids[place]);
        EXPECT_EQ(left.prompt.kinds[row], prompt.kinds[place]);
        if (left.prompt.kinds[row] == token_kind::image)
          kept.push_back(left.places[row] - (left.places[row] < 6 ? 1 : 2));
      }
      EXPECT_EQ(host(left.image_features), rows(kept));
      for (const std::int32_t text : {0, 6, 14, 15})
        EXPECT_TRUE(std::ranges::binary_search(left.places, text)) << text;
    }
}

TEST_F(thinning, drops_nothing_where_all_may_stay) {
  const auto image = features(4);
  const auto left = thin(be, prompt_of("tiiiit", {4}), image.view(), 0,
                         {thinning_criterion::duplication, {.rule = select::keep_rule::ratio}});
  EXPECT_EQ(left.places, (indices{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(host(left.image_features), host(image));
}

TEST_F(thinning, refuses_an_elbow_by_name_and_numbers_out_of_range) {
  const auto refusal = [](const select::keep_options& keep) {
    return support::error_text([&] { thinning_config{.keep = keep}.validate(); });
  };
  support::expect_parts(refusal({}), "max_distance", "before the decoder", "top_k", "ratio");
  support::expect_parts(refusal({.rule = select::keep_rule::top_k, .count = 0}), "top_k");
  support::expect_parts(refusal({.rule = select::keep_rule::ratio, .ratio = 1.5}), "ratio");
  EXPECT_NO_THROW(thinning_config{}.validate());
}

TEST_F(thinning, refuses_features_of_another_number) {
  const auto image = features(3);
  support::expect_parts(support::error_text([&] { thin(be, prompt_of("tiiiit", {4}), image.view(), 0, {}); }),
                        "4 image tokens", "features of 3");
}

TEST_F(thinning, names_the_token_whose_features_are_not_finite) {
  matrix<B> image(be, 2, 2);
  const std::vector<float> values{1, 2, 3e38f, 3e38f};
  upload_values(be, image.view(), {values.data(), 4});
  support::expect_parts(support::error_text([&] { thin(be, prompt_of("tiit", {2}), image.view(), 0, {}); }),
                        "features of token 1", "NaN or infinite");
}

}  // namespace
}  // namespace corematching

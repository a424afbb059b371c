// SPDX-License-Identifier: Apache-2.0
#include "llava/token_picture.hpp"

#include <gtest/gtest.h>

#include "corematching/core/error.hpp"
#include "llava/bitmap_font.hpp"

namespace corematching::driver {
namespace {

using colour = std::vector<std::uint8_t>;

constexpr int side = 336, first_panel = 20, second_panel = 20 + side + 16;

/// A red picture of 4 x 4 patches, 12 pixels each, and one panel in which patches 5 and 6 are kept.
token_figure example() {
  token_figure figure;
  figure.seen = make_picture(48, 48);
  for (std::size_t i = 0; i < figure.seen.rgb.size(); i += 3) figure.seen.rgb[i] = 200;
  figure.grid_width = figure.grid_height = 4;
  figure.question = "What colour is it?";
  figure.answer = "It is red.";
  figure.panels = {{.where = "layer 2", .kept = {5, 6}}};
  return figure;
}

/// The row in which the panels begin: the first with a pixel of the picture.
int top_of_panels(const picture& image) {
  int y = 0;
  while (y < image.height && image.at(first_panel, y)[0] != 200) ++y;
  return y;
}

/// The middle of a patch of the panel that begins at `left`.
colour patch_colour(const picture& image, int left, int column, int row) {
  const std::uint8_t* pixel = image.at(left + column * 84 + 42, top_of_panels(image) + row * 84 + 42);
  return {pixel, pixel + 3};
}

std::string refusal(const token_figure& figure) {
  try {
    draw_token_figure(figure);
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

TEST(token_figure, has_one_panel_for_the_picture_and_one_for_each_layer) {
  token_figure figure = example();
  EXPECT_EQ(draw_token_figure(figure).width, 20 + 2 * side + 16 + 20);
  figure.panels.clear();
  EXPECT_EQ(draw_token_figure(figure).width, 20 + side + 20);
  figure.panels.resize(5);
  EXPECT_EQ(draw_token_figure(figure).width, 20 + 3 * side + 2 * 16 + 20) << "six panels make two rows";
}

TEST(token_figure, greys_out_what_is_dropped) {
  const picture image = draw_token_figure(example());
  const colour red{200, 0, 0};
  for (int row = 0; row < 4; ++row)
    for (int column = 0; column < 4; ++column) {
      EXPECT_EQ(patch_colour(image, first_panel, column, row), red);
      const colour shown = patch_colour(image, second_panel, column, row);
      const bool kept = row == 1 && (column == 1 || column == 2);
      if (kept) {
        EXPECT_EQ(shown, red);
      } else {
        EXPECT_EQ(shown[0], shown[1]);
        EXPECT_GT(shown[0], 180);
      }
    }
}

TEST(token_figure, outlines_what_is_kept) {
  const picture image = draw_token_figure(example());
  const int top = top_of_panels(image);
  const auto brightness = [&](int x, int y) { return image.at(second_panel + x, top + y)[0]; };
  EXPECT_LT(brightness(84, 126), 100) << "between dropped and kept";
  EXPECT_GT(brightness(168, 126), 200) << "between two that are kept";
}

TEST(token_figure, does_not_shrink_a_large_picture) {
  token_figure figure = example();
  figure.seen = make_picture(700, 700);
  EXPECT_EQ(draw_token_figure(figure).width, 20 + 2 * 700 + 16 + 20);
}

TEST(token_figure, grows_with_its_text_and_no_further_than_six_lines) {
  token_figure figure = example();
  const int one_line = draw_token_figure(figure).height;
  figure.answer = "It is red. It is red. It is red. It is red. It is red. It is red. It is red. It is red.";
  EXPECT_GT(draw_token_figure(figure).height, one_line);
  figure.answer = std::string(5000, 'w');
  const int six_lines = draw_token_figure(figure).height;
  figure.answer = std::string(9000, 'w');
  EXPECT_EQ(draw_token_figure(figure).height, six_lines);
}

TEST(token_figure, draws_any_text) {
  token_figure figure = example();
  figure.question = "\xe6\x97\xa5\xe6\x9c\xac \xff\x80 \t\n";
  figure.answer.clear();
  for (int c = 0; c < 256; ++c) figure.answer += static_cast<char>(c);
  EXPECT_NO_THROW(draw_token_figure(figure));
}

TEST(token_figure, refuses_what_does_not_fit) {
  token_figure figure = example();
  figure.panels[0].kept = {16};
  EXPECT_EQ(refusal(figure), "image token 16 of layer 2 is outside of the 4 x 4 patches");
  figure.panels[0].kept = {-1};
  EXPECT_EQ(refusal(figure), "image token -1 of layer 2 is outside of the 4 x 4 patches");
  figure = example();
  figure.grid_width = 0;
  EXPECT_EQ(refusal(figure), "a picture of 48 x 48 pixels has no 0 x 4 patches");
  EXPECT_EQ(refusal(token_figure{}), "the picture is empty: 0 x 0 pixels");
}

TEST(bitmap_font, has_well_formed_glyphs) {
  for (char c = '!'; c <= '~'; ++c) {
    const std::string_view glyph = font_glyph(c);
    const auto width = static_cast<std::size_t>(font_width(c));
    EXPECT_TRUE(width >= 1 && width <= 5) << c;
    EXPECT_EQ((glyph.size() + 1) % (width + 1), 0u) << c;
    EXPECT_LE((glyph.size() + 1) / (width + 1), static_cast<std::size_t>(font_height)) << c;
    EXPECT_NE(glyph.find('#'), glyph.npos) << c;
    for (char other = '!'; other < c; ++other) EXPECT_NE(glyph, font_glyph(other)) << c << other;
  }
}

}  // namespace
}  // namespace corematching::driver

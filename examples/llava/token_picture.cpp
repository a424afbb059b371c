// SPDX-License-Identifier: Apache-2.0
#include "llava/token_picture.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "corematching/core/error.hpp"
#include "corematching/model/picture/resize.hpp"
#include "llava/bitmap_font.hpp"

namespace corematching::driver {
namespace {

using colour = std::array<std::uint8_t, 3>;

constexpr colour white{255, 255, 255}, ink{38, 42, 50}, quiet_ink{104, 110, 122}, border{38, 42, 50};
constexpr int target_side = 336;  // pixels that a small picture is enlarged to, about
constexpr int margin = 20, gap = 16;
constexpr int text_scale = 2;
constexpr int line_height = (font_height + 4) * text_scale;
constexpr int most_columns = 4;
constexpr std::size_t most_lines = 6;  // of question or answer

void blend(std::uint8_t* pixel, const colour& over, int percent) {
  for (std::size_t c = 0; c < 3; ++c)
    pixel[c] = static_cast<std::uint8_t>((pixel[c] * (100 - percent) + over[c] * percent) / 100);
}

void fill(picture& image, const picture_window& area, const colour& with) {
  for (int y = area.top; y < area.top + area.height; ++y)
    for (int x = area.left; x < area.left + area.width; ++x)
      std::copy(with.begin(), with.end(), image.at(x, y));
}

void paste(picture& image, const picture& part, int left, int top) {
  for (int y = 0; y < part.height; ++y)
    std::copy_n(part.at(0, y), static_cast<std::size_t>(part.width) * 3, image.at(left, top + y));
}

int text_width(std::string_view text) {
  int width = 0;
  for (const char c : text) width += (font_width(c) + 1) * text_scale;
  return width;
}

void draw_text(picture& image, int left, int top, std::string_view text, const colour& with) {
  for (const char c : text) {
    int x = left, y = top;
    for (const char dot : c == ' ' ? std::string_view() : font_glyph(c)) {
      if (dot == '#') fill(image, {x, y, text_scale, text_scale}, with);
      x = dot == ' ' ? left : x + text_scale;
      y += dot == ' ' ? text_scale : 0;
    }
    left += (font_width(c) + 1) * text_scale;
  }
}

/// Printable ASCII with single spaces; '?' for each character that the typeface lacks.
std::string printable(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xc0) == 0x80) continue;  // the rest of a character that is already there
    const char shown = byte <= ' ' ? ' ' : byte <= '~' ? c : '?';
    if (shown != ' ' || (!result.empty() && result.back() != ' ')) result += shown;
  }
  return result;
}

/// Lines that fit into `width` pixels, broken at spaces where there are any.
std::vector<std::string> wrap(std::string text, int width) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    std::size_t fits = 1;
    while (fits < text.size() && text_width(std::string_view(text).substr(0, fits + 1)) <= width) ++fits;
    if (fits < text.size()) {
      const std::size_t space = text.rfind(' ', fits);
      if (space != text.npos && space > 0) fits = space;
    }
    lines.push_back(text.substr(0, fits));
    text.erase(0, std::min(text.find_first_not_of(' ', fits), text.size()));
  }
  return lines;
}

std::vector<std::string> wrap_some(const std::string& text, int width) {
  std::vector<std::string> lines = wrap(text, width);
  if (lines.size() <= most_lines) return lines;
  lines.resize(most_lines);
  // The dots may be wider than what they replace by the width of a few letters.
  lines.back() = wrap(lines.back(), width - text_width("...")).front() + "...";
  return lines;
}

/// Where patch `i` of `count` begins when `size` pixels are divided evenly.
int patch_edge(int i, int count, int size) {
  return static_cast<int>(std::int64_t{i} * size / count);
}

class figure_painter {
 public:
  explicit figure_painter(const token_figure& figure) : figure_(figure) {
    require_valid(figure.seen);
    require(figure.grid_width > 0 && figure.grid_height > 0 && figure.grid_width <= figure.seen.width &&
                figure.grid_height <= figure.seen.height,
            "a picture of ", figure.seen.width, " x ", figure.seen.height, " pixels has no ",
            figure.grid_width, " x ", figure.grid_height, " patches");
    // A whole factor keeps the patches' edges on pixels.
    const int factor = std::max(1, (target_side + figure.seen.width / 2) / figure.seen.width);
    view_ = resize_bicubic(figure.seen, figure.seen.width * factor, figure.seen.height * factor);
  }

  picture paint() const {
    const int panels = 1 + static_cast<int>(figure_.panels.size());
    const int rows = (panels + most_columns - 1) / most_columns, columns = (panels + rows - 1) / rows;
    const int width = 2 * margin + columns * view_.width + (columns - 1) * gap;
    // A run from token ids has no text to show.
    const auto lines = [&](const char* name, const std::string& text) {
      return text.empty() ? std::vector<std::string>{}
                          : wrap_some(name + printable(text), width - 2 * margin);
    };
    const auto question = lines("Q: ", figure_.question), answer = lines("A: ", figure_.answer);
    const int title = static_cast<int>(question.size() + answer.size()) * line_height;
    const int panel_height = view_.height + caption_height() + gap;
    picture image = make_picture(width, 2 * margin + title + rows * panel_height - gap / 2);
    fill(image, {0, 0, image.width, image.height}, white);
    int y = margin;
    y = draw_lines(image, margin, y, question, quiet_ink);
    y = draw_lines(image, margin, y, answer, ink) + gap / 2;
    for (int i = 0; i < panels; ++i) {
      const int left = margin + i % columns * (view_.width + gap), top = y + i / columns * panel_height;
      paste(image, i == 0 ? view_ : masked(figure_.panels[static_cast<std::size_t>(i - 1)]), left, top);
      draw_lines(image, left, top + view_.height + 8, captions(i), ink);
    }
    return image;
  }

 private:
  static int draw_lines(picture& image, int left, int top, const std::vector<std::string>& lines,
                        const colour& with) {
    for (const std::string& line : lines) {
      draw_text(image, left, top, line, with);
      top += line_height;
    }
    return top;
  }

  std::vector<std::string> captions(int panel) const {
    const int tokens = figure_.grid_width * figure_.grid_height;
    if (panel == 0) return wrap("what the model sees: " + std::to_string(tokens) + " tokens", view_.width);
    const token_panel& shown = figure_.panels[static_cast<std::size_t>(panel - 1)];
    return wrap(shown.where + ": " + std::to_string(shown.kept.size()) + " of " + std::to_string(tokens) +
                    " tokens kept",
                view_.width);
  }

  int caption_height() const {
    std::size_t lines = 0;
    for (int i = 0; i <= static_cast<int>(figure_.panels.size()); ++i)
      lines = std::max(lines, captions(i).size());
    return static_cast<int>(lines) * line_height;
  }

  std::vector<bool> kept_patches(const token_panel& panel) const {
    const int tokens = figure_.grid_width * figure_.grid_height;
    std::vector<bool> kept(static_cast<std::size_t>(tokens));
    for (const std::int32_t token : panel.kept) {
      require(token >= 0 && token < tokens, "image token ", token, " of ", panel.where, " is outside of the ",
              figure_.grid_width, " x ", figure_.grid_height, " patches");
      kept[static_cast<std::size_t>(token)] = true;
    }
    return kept;
  }

  picture_window patch(int column, int row) const {
    const int left = patch_edge(column, figure_.grid_width, view_.width);
    const int top = patch_edge(row, figure_.grid_height, view_.height);
    return {left, top, patch_edge(column + 1, figure_.grid_width, view_.width) - left,
            patch_edge(row + 1, figure_.grid_height, view_.height) - top};
  }

  picture masked(const token_panel& panel) const {
    const std::vector<bool> kept = kept_patches(panel);
    const auto is_kept = [&](int column, int row) {
      return kept[static_cast<std::size_t>(row * figure_.grid_width + column)];
    };
    picture image = view_;
    for (int row = 0; row < figure_.grid_height; ++row)
      for (int column = 0; column < figure_.grid_width; ++column) {
        const picture_window area = patch(column, row);
        const bool here = is_kept(column, row);
        if (!here) grey_out(image, area);
        // A thin grid, and a strong line where kept meets dropped.
        if (column > 0) line(image, {area.left, area.top, 1, area.height}, here != is_kept(column - 1, row));
        if (row > 0) line(image, {area.left, area.top, area.width, 1}, here != is_kept(column, row - 1));
      }
    return image;
  }

  static void grey_out(picture& image, const picture_window& area) {
    for (int y = area.top; y < area.top + area.height; ++y)
      for (int x = area.left; x < area.left + area.width; ++x) {
        std::uint8_t* pixel = image.at(x, y);
        const auto luma =
            static_cast<std::uint8_t>((pixel[0] * 299 + pixel[1] * 587 + pixel[2] * 114) / 1000);
        std::fill_n(pixel, 3, luma);
        blend(pixel, white, 72);
      }
  }

  static void line(picture& image, const picture_window& area, bool is_border) {
    for (int y = area.top; y < area.top + area.height; ++y)
      for (int x = area.left; x < area.left + area.width; ++x)
        blend(image.at(x, y), is_border ? border : white, is_border ? 85 : 35);
  }

  const token_figure& figure_;
  picture view_;
};

}  // namespace

picture draw_token_figure(const token_figure& figure) {
  return figure_painter(figure).paint();
}

}  // namespace corematching::driver

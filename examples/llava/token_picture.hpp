// SPDX-License-Identifier: Apache-2.0
// A figure of which image tokens were kept: the picture as the model saw it, then one panel for each place
// where tokens were dropped, with the patches of those that were gone by then greyed out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

struct token_panel {
  std::string where{};             // as "layer 10"
  std::vector<std::int32_t> kept;  // numbers of image tokens, row by row from the top left patch
};

struct token_figure {
  picture seen{};      // what the processor made of the picture: [grid_height * patch, grid_width * patch]
  int grid_width = 0;  // patches
  int grid_height = 0;
  std::string question{};
  std::string answer{};
  std::vector<token_panel> panels{};
};

/// Throws where the picture is empty or smaller than its grid, and where a kept token lies outside of the
/// grid.
picture draw_token_figure(const token_figure& figure);

}  // namespace corematching::driver

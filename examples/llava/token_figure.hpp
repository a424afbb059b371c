// SPDX-License-Identifier: Apache-2.0
// The figure of which image tokens an answer was given by.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llava/config.hpp"
#include "llava/report.hpp"
#include "llava/token_picture.hpp"

namespace corematching::driver {

/// Of the first picture of the prompt, which the model of `config` saw as `seen`, with a panel for each place
/// where `report` says that tokens were dropped.
inline token_figure figure_of(const run_report& report, const llava_config& config, picture seen,
                              std::string question) {
  const auto side = static_cast<int>(config.vision.image_size / config.vision.patch_size);
  token_figure figure{std::move(seen), side, side, std::move(question), report.answer, {}};
  // Where the class token is a token too, it stands before the patches and has no place in the picture.
  const index first = report.image_position + config.image_tokens() - config.vision.patches();
  const auto add_panel = [&](std::string where, const std::vector<std::int32_t>& kept) {
    token_panel panel{std::move(where), {}};
    for (const std::int32_t position : kept)
      if (position >= first && position < first + config.vision.patches())
        panel.kept.push_back(static_cast<std::int32_t>(position - first));
    figure.panels.push_back(std::move(panel));
  };
  if (report.thinned) add_panel("before the decoder", report.thinned->kept_image_positions);
  for (const token_match& match : report.matches)
    add_panel("layer " + std::to_string(match.layer), match.kept_image_positions);
  return figure;
}

}  // namespace corematching::driver

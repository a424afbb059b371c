// SPDX-License-Identifier: Apache-2.0
// The command line of `llava calibrate` as a struct.
#pragma once

#include <filesystem>

#include "llava/options.hpp"

namespace corematching::driver {

struct calibrate_options {
  options base;    // model, weights, device
  options sparse;  // the same, with the policy that is calibrated
  std::filesystem::path text;
  std::filesystem::path output;
  double tolerance = 0.01;    // perplexity beside the dense one's, less 1
  index chunk = 512;          // tokens that are run as one sequence, half of them scored
  index layer_tokens = 1024;  // to score with each layer alone
  index tokens = 8192;        // to score with all layers together
};

/// Reads the command line, of which argv[0] is "calibrate". Prints help or what is wrong, and throws
/// `usage_exit`; throws `error` for settings that do not go together.
calibrate_options parse_calibrate_options(int argc, const char* const* argv);

}  // namespace corematching::driver

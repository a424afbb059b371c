// SPDX-License-Identifier: Apache-2.0
// The command line of `llava measure` as a struct.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "llava/options.hpp"

namespace corematching::driver {

/// What is left out of one of the runs that are compared, and under which name.
struct configuration {
  std::string name;
  std::string text;            // the options as they were given
  options how;                 // of a run with them
  std::optional<index> layer;  // the only one that they apply to, under --by-layer
};

struct measure_options {
  options base;  // model, weights, device, and how questions are put
  std::filesystem::path text, questions;
  std::vector<configuration> configurations;
  bool by_layer = false;

  index chunk = 512;                   // tokens of a text that are run as one sequence
  std::optional<index> prompt_tokens;  // of these the first, which are not scored; nothing: half
  std::optional<index> most_tokens;    // to score; nothing: all of the text
  std::optional<index> timed_steps;    // decoded one by one in each chunk; nothing: all of them
  std::filesystem::path state;         // what has been measured; empty: nothing is kept
  std::filesystem::path json;          // empty: the table is all; "-": on standard output, without the table
  bool writes_json_out() const { return json == "-"; }
};

/// Reads the command line, of which argv[0] is "measure". Prints help or what is wrong, and throws
/// `usage_exit`.
measure_options parse_measure_options(int argc, const char* const* argv);

/// Those of `from`, and behind each of them itself in each of its layers alone: the other ones of a model of
/// `layers` layers are dense, and no tokens are dropped.
std::vector<configuration> with_single_layers(const std::vector<configuration>& from, index layers);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// The command line of `llava batch` as a struct.
#pragma once

#include <filesystem>

#include "llava/options.hpp"
#include "llava/serve/engine_limits.hpp"

namespace corematching::driver {

struct batch_options {
  options base;  // of requests that do not say otherwise
  engine_limits engine;
  std::filesystem::path input, output;
};

/// Reads the command line, of which argv[0] is "batch". Prints help or what is wrong, and throws
/// `usage_exit`; throws `error` for settings that do not go together.
batch_options parse_batch_options(int argc, const char* const* argv);

}  // namespace corematching::driver

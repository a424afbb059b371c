// SPDX-License-Identifier: Apache-2.0
// The command line of `llava serve` as a struct.
#pragma once

#include <string>

#include "llava/options.hpp"
#include "llava/serve/access.hpp"
#include "llava/serve/engine_limits.hpp"
#include "llava/serve/limits.hpp"

namespace corematching::driver {

struct serve_options {
  options base;  // of requests that do not say otherwise
  std::string host = "127.0.0.1";
  int port = 8080;
  access_rules access;
  serve_limits limits;
  engine_limits engine;
};

/// Reads the command line, of which argv[0] is "serve". Prints help or what is wrong, and throws
/// `usage_exit`; throws `error` for settings that do not go together.
serve_options parse_serve_options(int argc, const char* const* argv);

}  // namespace corematching::driver

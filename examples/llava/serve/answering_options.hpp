// SPDX-License-Identifier: Apache-2.0
// Options of commands that answer requests, wherever these come from.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "llava/options.hpp"
#include "llava/serve/engine_limits.hpp"

namespace corematching::driver {

/// An option whose value is a number of bytes, shown in MiB.
CLI::Option* add_bytes(CLI::App& app, const std::string& name, std::uint64_t& bytes, const std::string& help);

/// How the model answers what does not say it itself, and how much it takes on: everything but --model and
/// where requests come from.
void add_answering(CLI::App& app, options& base, engine_limits& limits);

/// Parses a command line that has them, and settles what they leave open. Throws `usage_exit` or `error`.
void parse_answering(CLI::App& app, int argc, const char* const* argv, options& base);

}  // namespace corematching::driver

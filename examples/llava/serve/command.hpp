// SPDX-License-Identifier: Apache-2.0
// `llava serve`: a model that answers over HTTP.
#pragma once

#include <functional>
#include <memory>

#include "llava/console.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/options.hpp"

namespace corematching::driver {

/// Loads the model of `base` and begins to answer with it.
using engine_maker = std::function<std::unique_ptr<answering>(
    const options& base, const engine_limits& limits, console& terminal)>;

/// Runs the command line, of which argv[0] is "serve", until SIGTERM or SIGINT: then no further questions are
/// taken, and those that were are answered; a second signal ends these, too. Throws `usage_exit` or `error`.
void run_serve(int argc, const char* const* argv, console& terminal, const engine_maker& make_engine);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// `llava batch`: a file of requests and the file of their answers.
#pragma once

#include "llava/console.hpp"
#include "llava/serve/command.hpp"

namespace corematching::driver {

/// Runs the command line, of which argv[0] is "batch"; says on standard output how many requests were
/// answered, and returns whether all were. Throws `usage_exit` or `error`.
bool run_batch(int argc, const char* const* argv, console& terminal, const engine_maker& make_engine);

}  // namespace corematching::driver

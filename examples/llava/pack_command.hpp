// SPDX-License-Identifier: Apache-2.0
// `llava pack`: converts the weights of a checkpoint's language model once, into a file beside it.
#pragma once

#include "llava/console.hpp"

namespace corematching::driver {

/// Runs the command line, of which argv[0] is "pack". Throws `usage_exit` or `error`.
void run_pack(int argc, const char* const* argv, console& terminal);

}  // namespace corematching::driver

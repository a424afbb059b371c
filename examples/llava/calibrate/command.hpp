// SPDX-License-Identifier: Apache-2.0
// `llava calibrate`: how few of its neurons each layer of a model can do with.
#pragma once

#include "llava/console.hpp"
#include "llava/measure/command.hpp"

namespace corematching::driver {

/// Runs the command line, of which argv[0] is "calibrate"; says on standard output what it found. Throws
/// `usage_exit` or `error`.
void run_calibrate(int argc, const char* const* argv, console& terminal, const measurer& measure);

}  // namespace corematching::driver

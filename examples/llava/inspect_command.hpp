// SPDX-License-Identifier: Apache-2.0
// `llava inspect`: what a checkpoint holds, whether it can be run, and if not, why.
#pragma once

namespace corematching::driver {

/// Runs the command line, of which argv[0] is "inspect"; prints to standard output. Returns whether the
/// checkpoint can be run. Throws `usage_exit`, and `error` where there is no such file or directory.
bool run_inspect(int argc, const char* const* argv);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// `llava measure`: what configurations do to a model's predictions on a text or on questions with their
// answers.
#pragma once

#include <functional>

#include "llava/console.hpp"
#include "llava/measure/run.hpp"

namespace corematching::driver {

/// Measures what a plan says: `measure` of run.hpp.
using measurer =
    std::function<void(const measurement_plan& plan, console& terminal, const measurement_listener& to)>;

/// Runs the command line, of which argv[0] is "measure"; prints a table to standard output. Throws
/// `usage_exit` or `error`.
void run_measure(int argc, const char* const* argv, console& terminal, const measurer& measure);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// One question: load, look, read, answer.
#pragma once

#include <functional>
#include <string>

#include "llava/console.hpp"
#include "llava/options.hpp"
#include "llava/report.hpp"

namespace corematching::driver {

/// Runs what `o` asks for on the CPU, and writes the files it names. `on_text` hears the answer piece by
/// piece. Throws `error` for whatever cannot be done.
run_report run_on_cpu(const options& o, console& terminal,
                      const std::function<void(const std::string&)>& on_text);

}  // namespace corematching::driver

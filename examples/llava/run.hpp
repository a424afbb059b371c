// SPDX-License-Identifier: Apache-2.0
// One question: load, look, read, answer.
#pragma once

#include <functional>
#include <string>

#include "llava/console.hpp"
#include "llava/options.hpp"
#include "llava/report.hpp"

namespace corematching::driver {

using text_listener = std::function<void(const std::string&)>;

/// Runs what `o` asks for on the CPU, and writes the files it names. `on_text` hears the answer piece by
/// piece. Throws `error` for whatever cannot be done.
run_report run_on_cpu(const options& o, console& terminal, const text_listener& on_text);

/// The same on the CUDA device that `o` names; an error where this program was built without CUDA.
run_report run_on_cuda(const options& o, console& terminal, const text_listener& on_text);

inline run_report run(const options& o, console& terminal, const text_listener& on_text) {
  return o.cuda_device ? run_on_cuda(o, terminal, on_text) : run_on_cpu(o, terminal, on_text);
}

}  // namespace corematching::driver

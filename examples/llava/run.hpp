// SPDX-License-Identifier: Apache-2.0
// Load, look, read, answer: once, or question after question.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "corematching/core/error.hpp"
#include "llava/console.hpp"
#include "llava/options.hpp"
#include "llava/report.hpp"

namespace corematching::driver {

/// Who a conversation is with.
struct listener {
  std::function<std::optional<std::string>()> next_question;  // nothing ends the conversation
  std::function<void(const std::string&)> on_text;            // a piece of the answer
  std::function<void(const run_report&)> on_answer;           // it is complete
};

/// Runs what `o` asks for on the CPU, and writes the files it names. Returns whether every question could be
/// asked; of one that could not the terminal hears. Throws `error` for whatever else cannot be done.
bool run_on_cpu(const options& o, console& terminal, const listener& to);

/// The same on the CPU by Eigen alone; an error where this program was built without it.
bool run_on_eigen(const options& o, console& terminal, const listener& to);

/// The same on the CUDA device that `o` names; an error where this program was built without CUDA.
bool run_on_cuda(const options& o, console& terminal, const listener& to);

inline bool run(const options& o, console& terminal, const listener& to) {
  switch (o.device.what) {
    case device_choice::kind::cpu: return run_on_cpu(o, terminal, to);
    case device_choice::kind::eigen: return run_on_eigen(o, terminal, to);
    case device_choice::kind::cuda: return run_on_cuda(o, terminal, to);
  }
  fail("unknown device");
}

}  // namespace corematching::driver

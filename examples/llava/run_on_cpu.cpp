// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cpu/backend.hpp"
#include "llava/conversation.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

run_report run_on_cpu(const options& o, console& terminal, const text_listener& on_text) {
  cpu::backend be(o.threads);
  run_report report = conversation<cpu::backend>(be, o, terminal).run(on_text);
  report.device = "CPU";
  report.threads = be.threads();
  return report;
}

}  // namespace corematching::driver

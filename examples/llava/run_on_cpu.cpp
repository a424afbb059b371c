// SPDX-License-Identifier: Apache-2.0
#include "corematching/cpu_linked.hpp"
#include "llava/conversation.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

run_report run_on_cpu(const options& o, console& terminal, const text_listener& on_text) {
  auto be = cpu::make_linked_backend(o.threads);
  run_report report = conversation(be, o, terminal).run(on_text);
  report.computed_by = be.describe();
  return report;
}

}  // namespace corematching::driver

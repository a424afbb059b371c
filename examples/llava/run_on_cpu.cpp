// SPDX-License-Identifier: Apache-2.0
#include "corematching/cpu_linked.hpp"
#include "llava/conversation.hpp"
#include "llava/measure/measurement.hpp"
#include "llava/measure/run.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

bool run_on_cpu(const options& o, console& terminal, const listener& to) {
  auto be = cpu::make_linked_backend(o.threads);
  return conversation(be, o, terminal).run(to);
}

void measure_on_cpu(const measurement_plan& plan, console& terminal, const measurement_listener& to) {
  auto be = cpu::make_linked_backend(plan.base.threads);
  measurement(be, plan, terminal).run(to);
}

}  // namespace corematching::driver

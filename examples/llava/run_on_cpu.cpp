// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "corematching/backend/linked/cpu.hpp"
#include "llava/run_on_host.hpp"
#include "llava/serve/make_engine.hpp"

namespace corematching::driver {

bool run_on_cpu(const options& o, console& terminal, const listener& to) {
  auto be = cpu::make_linked_backend(o.threads);
  return run_on_host(be, o, terminal, to);
}

void measure_on_cpu(const measurement_plan& plan, console& terminal, const measurement_listener& to) {
  auto be = cpu::make_linked_backend(plan.base.threads);
  measure_on_host(be, plan, terminal, to);
}

std::unique_ptr<answering> make_engine_on_cpu(const options& o, const engine_limits& limits,
                                              console& terminal) {
  return make_engine_on_host(cpu::make_linked_backend(o.threads), o, limits, terminal);
}

}  // namespace corematching::driver

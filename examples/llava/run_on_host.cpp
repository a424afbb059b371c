// SPDX-License-Identifier: Apache-2.0
#include "llava/run_on_host.hpp"

#include "corematching/linked_models.hpp"
#include "llava/conversation.hpp"
#include "llava/measure/measurement.hpp"

namespace corematching::driver {

bool run_on_host(linked_backend<host_space>& be, const options& o, console& terminal, const listener& to) {
  return conversation(be, o, terminal).run(to);
}

void measure_on_host(linked_backend<host_space>& be, const measurement_plan& plan, console& terminal,
                     const measurement_listener& to) {
  measurement(be, plan, terminal).run(to);
}

}  // namespace corematching::driver

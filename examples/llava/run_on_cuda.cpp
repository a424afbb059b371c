// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "corematching/cuda_linked.hpp"
#include "llava/conversation.hpp"
#include "llava/measure/measurement.hpp"
#include "llava/measure/run.hpp"
#include "llava/run.hpp"
#include "llava/serve/engine.hpp"
#include "llava/serve/make_engine.hpp"

namespace corematching::driver {

bool run_on_cuda(const options& o, console& terminal, const listener& to) {
  auto be = cuda::make_linked_backend(o.device.number);
  return conversation(be, o, terminal).run(to);
}

void measure_on_cuda(const measurement_plan& plan, console& terminal, const measurement_listener& to) {
  auto be = cuda::make_linked_backend(plan.base.device.number);
  measurement(be, plan, terminal).run(to);
}

std::unique_ptr<answering> make_engine_on_cuda(const options& o, const engine_limits& limits,
                                               console& terminal) {
  return std::make_unique<engine<linked_backend<device_space>>>(cuda::make_linked_backend(o.device.number), o,
                                                                limits, terminal);
}

}  // namespace corematching::driver

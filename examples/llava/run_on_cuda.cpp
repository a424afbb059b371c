// SPDX-License-Identifier: Apache-2.0
#include "corematching/cuda_linked.hpp"
#include "llava/conversation.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

run_report run_on_cuda(const options& o, console& terminal, const text_listener& on_text) {
  auto be = cuda::make_linked_backend(o.cuda_device.value());
  run_report report = conversation(be, o, terminal).run(on_text);
  report.computed_by = be.describe();
  return report;
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cuda/backend.cuh"
#include "llava/conversation.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

run_report run_on_cuda(const options& o, console& terminal, const text_listener& on_text) {
  cuda::backend be(o.cuda_device.value());
  run_report report = conversation<cuda::backend>(be, o, terminal).run(on_text);
  report.device = be.device().name;
  return report;
}

}  // namespace corematching::driver

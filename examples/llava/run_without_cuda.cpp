// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "corematching/core/error.hpp"
#include "llava/measure/run.hpp"
#include "llava/run.hpp"
#include "llava/serve/make_engine.hpp"

namespace corematching::driver {
namespace {

[[noreturn]] void refuse_cuda() {
  fail(
      "--device: this program was built without CUDA: the CUDA Toolkit was not found, or COREMATCHING_CUDA "
      "was OFF");
}

}  // namespace

bool run_on_cuda(const options&, console&, const listener&) {
  refuse_cuda();
}

void measure_on_cuda(const measurement_plan&, console&, const measurement_listener&) {
  refuse_cuda();
}

std::unique_ptr<answering> make_engine_on_cuda(const options&, const engine_limits&, console&) {
  refuse_cuda();
}

}  // namespace corematching::driver

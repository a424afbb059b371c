// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/error.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

bool run_on_cuda(const options&, console&, const listener&) {
  fail(
      "--device: this program was built without CUDA: the CUDA Toolkit was not found, or COREMATCHING_CUDA "
      "was OFF");
}

}  // namespace corematching::driver

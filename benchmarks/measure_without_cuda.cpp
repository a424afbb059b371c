// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/error.hpp"
#include "measure.hpp"

namespace corematching::bench {
namespace {

[[noreturn]] void refuse() {
  fail(
      "--device: this program was built without CUDA: the CUDA Toolkit was not found, or COREMATCHING_CUDA "
      "was OFF");
}

}  // namespace

measurement measure_on_cuda(const options&) {
  refuse();
}

batch_measurement measure_batches_on_cuda(const options&) {
  refuse();
}

machine_rates probe_cuda(const options&) {
  refuse();
}

}  // namespace corematching::bench

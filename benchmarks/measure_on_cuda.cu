// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cuda/backend.cuh"
#include "cuda_probe.cuh"
#include "measure.hpp"
#include "measure_model.hpp"

namespace corematching::bench {

measurement measure_on_cuda(const options& o) {
  cuda::backend be(o.cuda_device.value());
  be.set_recording(o.graph);
  cuda_probe probe(be);
  measurement result = measure_model(be, o, probe);
  result.device = be.device().name;
  return result;
}

machine_rates probe_cuda(const options& o) {
  cuda::backend be(o.cuda_device.value());
  return cuda_probe(be)();
}

}  // namespace corematching::bench

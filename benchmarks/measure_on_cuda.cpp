// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/error.hpp"
#include "corematching/cuda_linked.hpp"
#include "device_probe.hpp"
#include "measure.hpp"
#include "measure_batches.hpp"
#include "measure_model.hpp"

namespace corematching::bench {

measurement measure_on_cuda(const options& o) {
  auto be = cuda::make_linked_backend(o.cuda_device.value());
  be.set_capturing(o.graph);
  require(
      be.set_overlapping(o.overlap) == o.overlap,
      "--overlap: kernels cannot be started early on this device, by this driver or as they were compiled");
  device_probe probe(*o.cuda_device);
  measurement result = measure_model(be, o, [&] { return probe.rates(); });
  result.device = be.describe().device;
  return result;
}

batch_measurement measure_batches_on_cuda(const options& o) {
  auto be = cuda::make_linked_backend(o.cuda_device.value());
  device_probe probe(*o.cuda_device);
  batch_measurement result = measure_batches(be, o, [&] { return probe.rates(); });
  result.device = be.describe().device;
  return result;
}

machine_rates probe_cuda(const options& o) {
  return device_probe(o.cuda_device.value()).rates();
}

}  // namespace corematching::bench

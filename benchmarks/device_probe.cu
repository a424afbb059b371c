// SPDX-License-Identifier: Apache-2.0
#include "device_probe.hpp"

#include "cuda_probe.cuh"

namespace corematching::bench {

struct device_probe::parts {
  explicit parts(int device)
      : processors(cuda::use_device(device).processors), probe(stream.get(), processors) {}
  int processors;
  cuda::stream_handle stream = cuda::make_stream();
  cuda_probe probe;
};

device_probe::device_probe(int device) : parts_(std::make_unique<parts>(device)) {}
device_probe::~device_probe() = default;

machine_rates device_probe::rates() {
  return parts_->probe();
}

}  // namespace corematching::bench

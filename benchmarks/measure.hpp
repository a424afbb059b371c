// SPDX-License-Identifier: Apache-2.0
// The measurement that a command line asks for, on the CPU or on a CUDA device.
#pragma once

#include "batch_report.hpp"
#include "llava_bench_options.hpp"
#include "llava_bench_report.hpp"

namespace corematching::bench {

measurement measure_on_cpu(const options& o);
/// Throws `error` where there is no device, or where this program was built without CUDA.
measurement measure_on_cuda(const options& o);

inline measurement measure(const options& o) {
  return o.cuda_device ? measure_on_cuda(o) : measure_on_cpu(o);
}

/// The same of steps of several sequences together.
batch_measurement measure_batches_on_cpu(const options& o);
batch_measurement measure_batches_on_cuda(const options& o);

inline batch_measurement measure_batches(const options& o) {
  return o.cuda_device ? measure_batches_on_cuda(o) : measure_batches_on_cpu(o);
}

/// What memory and matrix units do when nothing else is asked of them.
machine_rates probe_cpu(const options& o);
machine_rates probe_cuda(const options& o);

inline machine_rates probe(const options& o) {
  return o.cuda_device ? probe_cuda(o) : probe_cpu(o);
}

}  // namespace corematching::bench

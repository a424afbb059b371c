// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "corematching/cpu_linked.hpp"
#include "measure.hpp"
#include "measure_batches.hpp"
#include "measure_model.hpp"
#include "memory_probe.hpp"

namespace corematching::bench {
namespace {

std::string name_of(const linked::description& told) {
  return told.device + " with " + told.instruction_set + ", " + std::to_string(told.threads) + " threads";
}

}  // namespace

measurement measure_on_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  memory_probe probe(pool);
  auto be = cpu::make_linked_backend(o.threads);
  measurement result = measure_model(be, o, [&] { return machine_rates{probe.read_bytes_per_second(), 0}; });
  result.device = name_of(be.describe());
  result.threads = be.describe().threads;
  return result;
}

batch_measurement measure_batches_on_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  memory_probe probe(pool);
  auto be = cpu::make_linked_backend(o.threads);
  batch_measurement result = measure_batches(be, o, [&] {
    return machine_rates{probe.read_bytes_per_second(), 0};
  });
  result.device = name_of(be.describe());
  return result;
}

machine_rates probe_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  return {memory_probe(pool).read_bytes_per_second(), 0};
}

}  // namespace corematching::bench

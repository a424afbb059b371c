// SPDX-License-Identifier: Apache-2.0
#include "corematching/cpu_linked.hpp"
#include "measure.hpp"
#include "measure_model.hpp"
#include "memory_probe.hpp"

namespace corematching::bench {

measurement measure_on_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  memory_probe probe(pool);
  auto be = cpu::make_linked_backend(o.threads);
  measurement result = measure_model(be, o, [&] { return machine_rates{probe.read_bytes_per_second(), 0}; });
  const linked::description told = be.describe();
  result.device =
      told.device + " with " + told.instruction_set + ", " + std::to_string(told.threads) + " threads";
  result.threads = told.threads;
  return result;
}

machine_rates probe_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  return {memory_probe(pool).read_bytes_per_second(), 0};
}

}  // namespace corematching::bench

// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cpu/backend.hpp"
#include "measure.hpp"
#include "measure_model.hpp"
#include "memory_probe.hpp"

namespace corematching::bench {

measurement measure_on_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  memory_probe probe(pool);
  cpu::backend be(o.threads);
  measurement result = measure_model(be, o, [&] { return machine_rates{probe.read_bytes_per_second(), 0}; });
  result.device = "CPU, " + std::to_string(be.threads()) + " threads";
  return result;
}

machine_rates probe_cpu(const options& o) {
  cpu::thread_pool pool(o.threads);
  return {memory_probe(pool).read_bytes_per_second(), 0};
}

}  // namespace corematching::bench

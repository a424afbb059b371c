// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/linked/eigen.hpp"
#include "llava/run_on_host.hpp"

namespace corematching::driver {

bool run_on_eigen(const options& o, console& terminal, const listener& to) {
  auto be = eigen::make_linked_backend(o.threads);
  return run_on_host(be, o, terminal, to);
}

void measure_on_eigen(const measurement_plan& plan, console& terminal, const measurement_listener& to) {
  auto be = eigen::make_linked_backend(plan.base.threads);
  measure_on_host(be, plan, terminal, to);
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// What runs in the host's memory: linked, the CPU's kernels and Eigen are one type, so what the driver does
// with them is compiled once.
#pragma once

#include "corematching/backend/linked/backend.hpp"
#include "llava/measure/run.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

/// `run` and `measure` with `be`.
bool run_on_host(linked_backend<host_space>& be, const options& o, console& terminal, const listener& to);
void measure_on_host(linked_backend<host_space>& be, const measurement_plan& plan, console& terminal,
                     const measurement_listener& to);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// What is to be measured, and the backends that do it.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "corematching/backend/linked/operations.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/index.hpp"
#include "corematching/model/config.hpp"
#include "llava/console.hpp"
#include "llava/measure/items.hpp"
#include "llava/measure/options.hpp"
#include "llava/measure/tally.hpp"

namespace corematching::driver {

struct measurement_plan {
  options base;  // of the dense run
  model_config config;
  std::vector<configuration> configurations;
  std::vector<scored_item> items;    // in the order in which they are measured
  std::optional<index> timed_steps;  // of each item and run, those that are decoded one by one; nothing: all
};

/// Who keeps what is measured.
struct measurement_listener {
  /// Told what computes; answers how many of the items are measured already.
  std::function<index(const linked::description&)> begin;
  /// One item's sums: the dense run's, then those of each configuration.
  std::function<void(const std::vector<tally>&)> on_item;
};

/// Measures the rest of `plan` on the CPU. Throws `error` for whatever cannot be done.
void measure_on_cpu(const measurement_plan& plan, console& terminal, const measurement_listener& to);

/// The same on the CPU by Eigen alone; an error where this program was built without it.
void measure_on_eigen(const measurement_plan& plan, console& terminal, const measurement_listener& to);

/// The same on the CUDA device that the plan names; an error where this program was built without CUDA.
void measure_on_cuda(const measurement_plan& plan, console& terminal, const measurement_listener& to);

inline void measure(const measurement_plan& plan, console& terminal, const measurement_listener& to) {
  switch (plan.base.device.what) {
    case device_choice::kind::cpu: return measure_on_cpu(plan, terminal, to);
    case device_choice::kind::eigen: return measure_on_eigen(plan, terminal, to);
    case device_choice::kind::cuda: return measure_on_cuda(plan, terminal, to);
  }
  fail("unknown device");
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "corematching/core/error.hpp"
#include "llava/measure/run.hpp"
#include "llava/run.hpp"
#include "llava/serve/make_engine.hpp"

namespace corematching::driver {
namespace {

[[noreturn]] void refuse_eigen() {
  fail("--device: this program was built without Eigen: COREMATCHING_COMPONENTS did not name eigen_linked");
}

}  // namespace

bool run_on_eigen(const options&, console&, const listener&) {
  refuse_eigen();
}

void measure_on_eigen(const measurement_plan&, console&, const measurement_listener&) {
  refuse_eigen();
}

std::unique_ptr<answering> make_engine_on_eigen(const options&, const engine_limits&, console&) {
  refuse_eigen();
}

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/error.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

bool run_on_eigen(const options&, console&, const listener&) {
  fail("--device: this program was built without Eigen: COREMATCHING_COMPONENTS did not name eigen_linked");
}

}  // namespace corematching::driver

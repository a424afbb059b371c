// SPDX-License-Identifier: Apache-2.0
// Kernels that are included and so compiled for one instruction set: what they say where it is missing.
#include <cstdio>

#include "corematching/backend/cpu/backend.hpp"

int main() {
  try {
    const corematching::cpu::backend be(1);
    std::puts("made");
    return 0;
  } catch (const corematching::error& problem) {
    std::puts(problem.what());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
// Prints the instruction sets that are granted on this machine, as a list of CMake's.
#include <iostream>

#include "corematching/core/instruction_set.hpp"

int main() {
  using namespace corematching;
  const char* separator = "";
  for (const instruction_set set : instruction_sets) {
    if (!is_granted(this_cpu(), set)) continue;
    std::cout << separator << name_of(set);
    separator = ";";
  }
}

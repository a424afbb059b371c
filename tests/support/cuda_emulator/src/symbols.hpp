// SPDX-License-Identifier: Apache-2.0
// What the symbol table of the running program says: where __shared__ variables lie, and how kernels are
// called.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace cuda_emulator::detail {

/// The readable name of the function at an address, or "kernel" where the program has no symbols.
std::string symbol_name(const void* function);

struct shared_variable {
  unsigned char* begin;
  std::size_t size;
};

/// Fills the shared memory of a launch with 0xff before each block: all of it at first, then what has
/// changed, which is what this kernel uses.
class shared_memory {
 public:
  void poison();

 private:
  std::size_t blocks_ = 0;
  std::vector<shared_variable> used_;
};

}  // namespace cuda_emulator::detail

// SPDX-License-Identifier: Apache-2.0
// How often a test program asks for memory, where counted_allocations.cpp is linked: containers by new,
// tensors by aligned_alloc.
#pragma once

#include <cstdint>

namespace support {

/// Calls since the program began, of all threads.
std::int64_t allocations();

}  // namespace support

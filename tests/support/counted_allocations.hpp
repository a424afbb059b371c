// SPDX-License-Identifier: Apache-2.0
// How often a test program asks for memory, where counted_allocations.cpp is linked: containers by new,
// tensors by aligned_alloc. And memory that is not there.
#pragma once

#include <cstdint>

namespace support {

/// Calls since the program began, of all threads.
std::int64_t allocations();

/// Of the calls of new by this thread the one behind the next `after` throws bad_alloc; -1: none does.
void fail_allocation(int after);

}  // namespace support

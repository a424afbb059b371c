// SPDX-License-Identifier: Apache-2.0
// Stands in for the header of the CUDA toolkit: kernels and the runtime's functions on the CPU.
#pragma once

#include "cuda_emulator/collectives.hpp"
#include "cuda_emulator/emulator.hpp"
#include "cuda_emulator/intrinsics.hpp"
#include "cuda_emulator/language.hpp"
#include "cuda_emulator/runtime_api.hpp"
#include "cuda_emulator/runtime_types.hpp"

// SPDX-License-Identifier: Apache-2.0
// Everything for the CPU with linked kernels (corematching::cpu_linked): the backend, layers, hooks and
// models.
#pragma once

#include "corematching/backend/linked/cpu.hpp"
#include "corematching/linked_models.hpp"

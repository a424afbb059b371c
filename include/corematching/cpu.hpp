// SPDX-License-Identifier: Apache-2.0
// Everything for the CPU: the backend, layers, hooks and models.
#pragma once

#include "corematching/backend/cpu/backend.hpp"
#include "corematching/models.hpp"

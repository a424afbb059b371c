// SPDX-License-Identifier: Apache-2.0
// Everything for a CUDA device: the backend, layers, hooks and models.
#pragma once

#include "corematching/backend/cuda/backend.cuh"
#include "corematching/models.hpp"

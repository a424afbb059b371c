// SPDX-License-Identifier: Apache-2.0
// Everything for a CUDA device with linked kernels (corematching::cuda_linked), in plain C++: the backend,
// layers, hooks and models.
#pragma once

#include "corematching/backend/linked/cuda.hpp"
#include "corematching/linked_models.hpp"

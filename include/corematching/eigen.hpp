// SPDX-License-Identifier: Apache-2.0
// Everything on Eigen: the backend, layers, hooks and models.
#pragma once

#include "corematching/backend/eigen/backend.hpp"
#include "corematching/models.hpp"

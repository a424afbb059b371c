// SPDX-License-Identifier: Apache-2.0
// Everything on Eigen with a linked backend (corematching::eigen_linked): the backend, layers, hooks and
// models.
#pragma once

#include "corematching/backend/linked/eigen.hpp"
#include "corematching/linked_models.hpp"

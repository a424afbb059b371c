// SPDX-License-Identifier: Apache-2.0
// The kernels' part of every block format in which weights are multiplied.
#pragma once

#include "corematching/backend/cpu/formats/f16_planes.hpp"
#include "corematching/backend/cpu/formats/q4_0.hpp"
#include "corematching/backend/cpu/formats/q4_0_planes.hpp"
#include "corematching/backend/cpu/formats/q4_k.hpp"
#include "corematching/backend/cpu/formats/q4_k_planes.hpp"
#include "corematching/backend/cpu/formats/q5_k.hpp"
#include "corematching/backend/cpu/formats/q6_k.hpp"
#include "corematching/backend/cpu/formats/q8_0.hpp"
#include "corematching/backend/cpu/formats/q8_0_planes.hpp"

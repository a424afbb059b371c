// SPDX-License-Identifier: Apache-2.0
// The kernels' part of q4_0_planes.
#pragma once

#include "corematching/backend/cpu/formats/kernels.hpp"
#include "corematching/backend/cpu/formats/planes.hpp"
#include "corematching/backend/cpu/formats/q4_0.hpp"
#include "corematching/core/formats/q4_0_planes.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

template <>
struct format_kernels<q4_0_planes> : merged_kernels<q4_0_planes> {};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu

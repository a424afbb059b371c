// SPDX-License-Identifier: Apache-2.0
// The formats that hold quants of a file as they are: no numbers are rounded to them.
#pragma once

#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/super_blocks.hpp"
#include "corematching/core/formats/wide_blocks.hpp"

namespace corematching {

template <class Q>
concept moved_format = wide_format<Q> || neuron_format<Q> || super_format<Q> || super_plane_format<Q>;

}  // namespace corematching

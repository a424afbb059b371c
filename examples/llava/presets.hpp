// SPDX-License-Identifier: Apache-2.0
// What is left out where nobody says so option by option.
#pragma once

#include "llava/options.hpp"

namespace corematching::driver {

/// The policy that serves the weights and the device of `o`: `predicted` where there are planes to foretell
/// by, `gate` elsewhere.
neuron_policy policy_for(const options& o);

/// Sets what `o` leaves out to what its preset says, for its model, weights and kind of run. Throws `error`
/// where a calibration of its model cannot be read.
void apply_preset(options& o);

}  // namespace corematching::driver

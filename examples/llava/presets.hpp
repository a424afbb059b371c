// SPDX-License-Identifier: Apache-2.0
// What is left out where nobody says so option by option.
#pragma once

#include <optional>
#include <string>

#include "corematching/core/dtype.hpp"
#include "llava/option_checks.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// What the weights of `o` are stored as; nothing: as the model's files have them.
std::optional<dtype> type_of_weights(const options& o);

/// How reports call the weights of `o`, whose head is stored as that: "stored" where a file has several
/// types.
std::string weights_label(const options& o, dtype of_head);

/// Whether weights of that type can be foretold by on the device of `o`.
bool foretells(const options& o, dtype weights);

/// The policy that serves the weights and the device of `o`: `predicted` where there are planes to foretell
/// by, `gate` elsewhere.
neuron_policy policy_for(const options& o);

/// Sets what `o` leaves out to what its preset says, for its model, weights and kind of run. Throws `error`
/// where a calibration of its model cannot be read.
void apply_preset(options& o);

/// What of `o` the sparsity options that are `given` leave open: checks them, and applies a calibration or
/// the preset. Throws `error` where they do not go together.
void settle_sparsity(options& o, const given_options& given);

}  // namespace corematching::driver

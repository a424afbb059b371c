// SPDX-License-Identifier: Apache-2.0
// What is refused although every option on its own can be read. Every text begins with the option at fault.
#pragma once

#include <functional>
#include <string>

#include "llava/options.hpp"

namespace corematching::driver {

/// Throws `error` for an option that is given and would not be read, since others say that it is not needed.
/// `given` says whether the command line has an option.
void refuse_unread(const options& o, const std::function<bool(const std::string& option)>& given);

/// Throws `error` where image tokens are dropped before the decoder and it is not said how many stay, or not
/// in a way that can be.
void check_thinning(const options& o, const std::function<bool(const std::string& option)>& given);

/// Throws `error`, before anything is computed, for an output that could not be written or would destroy what
/// the run reads.
void check_outputs(const options& o);

/// Throws `error` for settings out of range in a decoder of `layers` layers with `neurons` neurons each.
void check_sparsity(const core_matching_config& config, index layers, index neurons);

}  // namespace corematching::driver

// SPDX-License-Identifier: Apache-2.0
// What is refused although every option on its own can be read. Every text begins with the option at fault.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "llava/options.hpp"

namespace corematching::driver {

/// Whether the command line has an option.
using given_options = std::function<bool(const std::string& option)>;

/// Options that go unread where `applies`.
struct unread_options {
  bool applies;
  std::vector<const char*> options;
  const char* where;
};

/// Throws `error` for the first option that is given and would not be read.
void refuse_unread(const std::vector<unread_options>& rules, const given_options& given);

/// The same by the rules of a run that `o` describes, whose options say which others are not needed.
void refuse_unread(const options& o, const given_options& given);

/// Throws `error` where image tokens are dropped before the decoder and it is not said how many stay, or not
/// in a way that can be.
void check_thinning(const options& o, const given_options& given);

/// Throws `error` for an output of option `name` that is called "-", by which others mean standard output.
void refuse_standard_output(const std::filesystem::path& output, const char* name);

/// Throws `error`, before anything is computed, for an output of option `name` that could not be written.
void check_writable(const std::filesystem::path& output, const char* name);

/// The same, and for one that would destroy what the run reads; an empty name is none.
void check_output(const options& o, const std::filesystem::path& output, const char* name);

/// Throws `error` for an output of option `name` that would replace a picture; empty names are none.
void check_picture_stays(const std::filesystem::path& picture, const std::filesystem::path& output,
                         const char* name);

/// Throws `error` as check_output() does for every output of a run.
void check_outputs(const options& o);

/// Throws `error` for a way to choose neurons that the weights, the device or beta rule out.
void check_neuron_policy(const options& o);

/// Throws `error` for a beta that is out of range, or that there is not for each of `layers` layers.
void check_beta(const options& o, index layers);

/// Throws `error` for settings out of range in a decoder of `layers` layers with `neurons` neurons each.
void check_sparsity(const core_matching_config& config, index layers, index neurons);

}  // namespace corematching::driver

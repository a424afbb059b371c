// SPDX-License-Identifier: Apache-2.0
#include "llava/presets.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "corematching/core/dtype.hpp"
#include "corematching/model/packed/file.hpp"
#include "llava/calibrate/calibration_file.hpp"

namespace corematching::driver {
namespace {

// Of each layer's neurons; holds on the models of docs/accuracy.md, which nobody trained or calibrated for
// it.
constexpr double safe_share_by_prediction = 0.7;
// Of a picture's tokens. Where their scores bend may leave too few: backgrounds are seen by many tokens or
// not at all.
constexpr double safe_share_of_tokens = 0.6;

void leave_out_safely(options& o) {
  o.sparsity.sparse_neurons = true;
  o.neurons.policy = policy_for(o);
  o.sparsity.beta = safe_share_by_prediction;
  const auto found = find_calibration(o);
  o.neurons.calibrated = found.has_value();
  if (found)
    o.neurons.beta_of_layer = found->beta_of_layer;
  else  // what holds by gates saves too little to be worth its work, two bits foretell less than four, and of
        // f16 in planes the chosen neurons' upper one is read twice: that many cost more than all
    o.sparsity.sparse_neurons =
        o.neurons.policy == neuron_policy::predicted && type_of_weights(o) == dtype::q8_0_planes;
  // A further question of a conversation may ask for what an earlier one did not.
  if (o.chat || (o.image.empty() && o.messages.empty())) return;
  o.sparsity.sparse_tokens = true;
  o.sparsity.criterion = token_criterion::rarity;
  o.sparsity.keep.rule = select::keep_rule::ratio;
  o.sparsity.keep.ratio = safe_share_of_tokens;
}

}  // namespace

std::optional<dtype> type_of_weights(const options& o) {
  return o.weights.type || o.weights.packed.empty() ? o.weights.type : packed_weights(o.weights.packed);
}

std::string weights_label(const options& o, dtype of_head) {
  if (const auto type = type_of_weights(o)) return name_of(*type);
  std::error_code ignored;
  return std::filesystem::is_regular_file(o.model, ignored) ? "stored" : name_of(of_head);
}

bool foretells(const options& o, dtype weights) {
  return has_planes(weights) && (o.device.what != device_choice::kind::cuda || !is_quantised(weights));
}

neuron_policy policy_for(const options& o) {
  const std::optional<dtype> weights = type_of_weights(o);
  return weights && foretells(o, *weights) ? neuron_policy::predicted : neuron_policy::gate;
}

void apply_preset(options& o) {
  switch (o.preset) {
    case preset_choice::safe: return leave_out_safely(o);
    case preset_choice::paper: o.sparsity = core_matching_config(); return;
    case preset_choice::dense: return;
  }
}

void settle_sparsity(options& o, const given_options& given) {
  refuse_unread(o, given);
  check_thinning(o, given);
  if (o.neurons.calibrated) take_calibrated_shares(o);
  if (!given("--sparsity") && !given("--thin")) apply_preset(o);
  check_neuron_policy(o);
}

}  // namespace corematching::driver

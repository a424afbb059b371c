// SPDX-License-Identifier: Apache-2.0
// What `llava calibrate` found for a model, in a file beside its checkpoint: for one policy and one type of
// weights, what share of its neurons each layer may compute.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "llava/options.hpp"

namespace corematching::driver {

struct calibration {
  std::string policy;   // as --neurons names it
  std::string weights;  // name of their type, or "stored"
  double tolerance = 0;
  std::vector<double> beta_of_layer;
  // What it was measured on, and what that showed.
  std::string text;  // name of the file
  std::uint64_t tokens = 0;
  double perplexity_to_dense = 0;
  double ffn_bytes_to_dense = 0;
  // What each layer does alone: the KL divergence from the dense predictions, in nats a token, at some
  // shares.
  std::vector<double> measured_shares;
  std::vector<std::vector<double>> damage_of_layer;
};

/// The name of the type in which `o` wants weights, or "stored".
std::string weights_name(const options& o);

/// Where the calibration of a model for the policy and the weights of `o` is looked for.
std::filesystem::path calibration_path(const options& o);

/// Writes it whole, or not at all.
void write_calibration(const std::filesystem::path& path, const calibration& found,
                       const std::filesystem::path& model);

/// Whether a file says that it is a calibration, of whatever checkpoint.
bool is_calibration(const std::filesystem::path& path);

/// All but what layers do alone. Throws `error` naming the file where it is no calibration, or one of another
/// checkpoint.
calibration read_calibration(const std::filesystem::path& path, const std::filesystem::path& model);

/// The calibration for the policy and weights of `o`; nothing where its model has none. Throws `error` where
/// it cannot be read or is one for others.
std::optional<calibration> find_calibration(const options& o);

/// Takes the shares for the policy and weights of `o` from the calibration of its model. Throws `error` where
/// there is none.
void take_calibrated_shares(options& o);

}  // namespace corematching::driver

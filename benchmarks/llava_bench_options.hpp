// SPDX-License-Identifier: Apache-2.0
// The command line of llava_bench.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/hooks/core_matching_config.hpp"
#include "generation_pass.hpp"

namespace corematching::bench {

struct options {
  std::string shape = "llava-1.5-7b";
  std::filesystem::path model;  // a checkpoint instead of a shape
  std::optional<index> layers;
  std::optional<dtype> weights;               // nothing: f16, or as a model stores them
  std::optional<std::uint64_t> memory_limit;  // bytes of a model's weights held at a time
  std::optional<int> cuda_device;             // its number; nothing: the CPU
  bool graph = true;                          // there, launch decoding steps as a graph
  bool overlap = false;                       // there, start kernels early
  int threads = 0;
  workload load{64, 576, 32, dtype::f16};
  std::optional<index> keep;
  std::optional<index> match_layer;
  double beta = 1;
  /// Which neurons those are: the paper's set, or each token's own choice by its gates or by a forecast.
  enum class neuron_policy : std::uint8_t { sentence, gate, predicted };
  neuron_policy policy = neuron_policy::sentence;
  std::vector<index> sequences;  // that decode together; empty: one answer is measured, prompt and all
  int repeat = 3;
  bool paired = false;
  bool probe = false;
  bool json = false;

  dtype random_weights() const { return weights.value_or(dtype::f16); }
  bool is_sparse() const { return keep || beta < 1; }
  core_matching_config sparsity() const;
};

/// Ends the program with this exit code: help was printed, or the command line is wrong.
struct usage_exit {
  int code;
};

/// Throws usage_exit.
options parse_options(int argc, const char* const* argv);

}  // namespace corematching::bench

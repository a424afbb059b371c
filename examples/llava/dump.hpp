// SPDX-License-Identifier: Apache-2.0
// Named tensors of one run, for comparison with another implementation.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching::driver {

/// Collects tensors and writes them at the end.
class dump {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, std::vector<float> values) {
    floats_.push_back(std::move(values));
    tensors_.push_back(io::as_tensor(std::move(name), std::move(shape), floats_.back()));
  }
  void add(std::string name, std::vector<std::int32_t> values) {
    integers_.push_back(std::move(values));
    tensors_.push_back(io::as_tensor(std::move(name), {std::ssize(integers_.back())}, integers_.back()));
  }

  /// layers.N.output and layers.N.ffn_activation.
  void add(layer_recording recording) {
    for (auto& [layer, matrix] : recording.outputs)
      add(layer_name(layer) + "output", {matrix.rows, matrix.cols}, std::move(matrix.values));
    for (auto& [layer, matrix] : recording.activations)
      add(layer_name(layer) + "ffn_activation", {matrix.rows, matrix.cols}, std::move(matrix.values));
  }

  /// layers.N.core_neurons and layers.N.kept_positions.
  template <backend B>
  void add_decisions(B& be, const core_matching<B>& state, index layers) {
    for (index layer = 0; layer < layers; ++layer) {
      const auto neurons = state.core_neurons(layer);
      if (!neurons.empty()) add(layer_name(layer) + "core_neurons", host_values(be, neurons));
    }
    for (const token_match& match : state.matches())
      add(layer_name(match.layer) + "kept_positions", match.kept_positions);
  }

  void write(const std::filesystem::path& path) const { io::write_safetensors(path, tensors_); }

 private:
  static std::string layer_name(index layer) { return "layers." + std::to_string(layer) + "."; }

  // Elements of a deque stay where they are, so the tensors may refer to them.
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::int32_t>> integers_;
  std::vector<io::named_tensor> tensors_;
};

}  // namespace corematching::driver

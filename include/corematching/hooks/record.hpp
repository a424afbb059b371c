// SPDX-License-Identifier: Apache-2.0
// Captures what a decoder computes, in host memory: hidden states and FFN activations of every layer, for
// dumps and for tests against reference activations.
#pragma once

#include <map>
#include <vector>

#include "corematching/nn/hook.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

/// A matrix in host memory.
struct recorded_matrix {
  index rows = 0;
  index cols = 0;
  std::vector<float> values;
};

/// What one pass through all layers showed.
struct layer_recording {
  std::map<index, recorded_matrix> outputs;      // by layer: hidden states that leave it, [T, D]
  std::map<index, recorded_matrix> activations;  // by layer: inputs of the down projection, [T, N]
};

/// Refers to a recording that outlives it.
template <backend B>
class record_hook {
 public:
  using attends = sites<site::ffn_activation, site::layer_output>;
  using view = matrix_view<const float, typename B::space>;

  explicit record_hook(layer_recording& recording) : recording_(&recording) {}

  void operator()(site::ffn_activation, const layer_context<B>& at, view activation) {
    if (at.first_row == 0) recording_->activations.erase(at.layer);
    append(at.be, recording_->activations[at.layer], activation);
  }
  void operator()(site::layer_output, const layer_context<B>& at, view x) {
    recording_->outputs.erase(at.layer);
    append(at.be, recording_->outputs[at.layer], x);
  }

 private:
  static void append(B& be, recorded_matrix& to, view from) {
    download_values(be, from, to.values);
    to.cols = from.cols;
    to.rows += from.rows;
  }

  layer_recording* recording_;
};

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// A calibration of the demo model, for tests of what becomes of such files.
#pragma once

#include "llava/calibrate/calibration_file.hpp"

namespace corematching::driver {

inline calibration gate_calibration() {
  return {.policy = "gate",
          .weights = "stored",
          .tolerance = 0.01,
          .beta_of_layer = {0.5, 1, 1, 1, 1, 1},
          .text = "t.txt",
          .tokens = 7,
          .perplexity_to_dense = 1.004,
          .ffn_bytes_to_dense = 0.9,
          .measured_shares = {},
          .damage_of_layer = {}};
}

}  // namespace corematching::driver

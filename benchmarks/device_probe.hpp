// SPDX-License-Identifier: Apache-2.0
// cuda_probe for plain C++.
#pragma once

#include <memory>

#include "measured_passes.hpp"

namespace corematching::bench {

/// Measures a device, on a stream and in memory of its own. Throws `error` where it cannot be used.
class device_probe {
 public:
  explicit device_probe(int device);
  ~device_probe();
  machine_rates rates();

 private:
  struct parts;
  std::unique_ptr<parts> parts_;
};

}  // namespace corematching::bench

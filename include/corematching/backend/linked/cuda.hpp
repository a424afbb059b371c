// SPDX-License-Identifier: Apache-2.0
// The CUDA backend of the target corematching::cuda_linked, for plain C++: nvcc has compiled its body.
#pragma once

#include "corematching/backend/linked/backend.hpp"

extern "C" {
extern const corematching::linked::body<corematching::device_space> corematching_cuda_body;
}

namespace corematching::cuda {

/// A backend on `device`, numbered as the system does; throws `error` where it cannot be used.
inline linked_backend<device_space> make_linked_backend(int device = 0) {
  return linked_backend<device_space>(corematching_cuda_body, device);
}

}  // namespace corematching::cuda

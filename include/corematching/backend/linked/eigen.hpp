// SPDX-License-Identifier: Apache-2.0
// The Eigen backend of the target corematching::eigen_linked.
#pragma once

#include "corematching/backend/linked/backend.hpp"

extern "C" {
extern const corematching::linked::body<corematching::host_space> corematching_cpu_body_eigen;
}

namespace corematching::eigen {

/// A backend on up to `threads` threads where the body was compiled with OpenMP, otherwise on one; 0 takes as
/// many as may run at once and OpenMP gives, and more never are. Throws `error` for a number outside of
/// 0..1024.
inline linked_backend<host_space> make_linked_backend(int threads = 0) {
  return linked_backend<host_space>(corematching_cpu_body_eigen, threads);
}

}  // namespace corematching::eigen

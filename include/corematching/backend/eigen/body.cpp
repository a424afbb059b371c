// SPDX-License-Identifier: Apache-2.0
// The Eigen backend as a body for linked_backend, which cmake/eigen_linked.cmake compiles.
#include "corematching/backend/linked/body.hpp"
#include "corematching/backend/eigen/backend.hpp"

using corematching::eigen::backend;

extern "C" {
extern const corematching::linked::body<corematching::host_space> corematching_cpu_body_eigen;
constinit const corematching::linked::body<corematching::host_space> corematching_cpu_body_eigen = {
    "eigen", &corematching::linked::make_backend<backend>,
    &corematching::linked::operations_of<backend>::value};
}

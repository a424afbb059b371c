// SPDX-License-Identifier: Apache-2.0
// The CUDA backend as a body for linked_backend: what needs nvcc, once for all programs.
#include "corematching/backend/cuda/backend.cuh"
#include "corematching/backend/linked/body.hpp"

extern "C" {
extern const corematching::linked::body<corematching::device_space> corematching_cuda_body;
constinit const corematching::linked::body<corematching::device_space> corematching_cuda_body = {
    "cuda", &corematching::linked::make_backend<corematching::cuda::backend>,
    &corematching::linked::operations_of<corematching::cuda::backend>::value};
}

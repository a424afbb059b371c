// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with many tokens (prefill), by cuBLAS. Tokens are rounded to the type of the
// weights, since the matrix units multiply factors of one type; sums are binary32. Weights in binary32 are
// the reference that the other types are held against, so nothing is rounded there: CUBLAS_COMPUTE_32F, and
// not the TF32 arithmetic that keeps 10 of the 23 bits.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <limits>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/products/restriction.cuh"
#include "corematching/backend/cuda/rows.cuh"
#include "corematching/core/launch.cuh"

namespace corematching::cuda::detail {

inline cudaDataType_t cublas_type(dtype type) {
  if (type == dtype::f16) return CUDA_R_16F;
  if (type == dtype::bf16) return CUDA_R_16BF;
  require(type == dtype::f32, "cuBLAS cannot multiply ", name_of(type));
  return CUDA_R_32F;
}

/// Bytes between the beginnings of rows that are stored anew: each begins at a multiple of 16 bytes, which
/// the kernels' widest loads and cuBLAS's fastest products want; in each of two planes, where there are.
inline index aligned_row_bytes(dtype type, index cols) {
  const index unit = has_planes(type) ? 32 : 16;
  return ceil_div(static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols))), unit) * unit;
}

/// A side of a matrix as cuBLAS takes it.
inline int cublas_size(index size) {
  require(size <= std::numeric_limits<int>::max(), "a matrix side of ", size, " is too long for cuBLAS");
  return static_cast<int>(size);
}

/// Elements between the beginnings of two rows, which cuBLAS counts instead of bytes. Rows that are no whole
/// number of elements apart are refused: no type of the language could be read from them either.
inline int leading_dimension(const stored_view<device_space>& matrix) {
  const auto size = static_cast<index>(bytes_of(matrix.type, 1));
  require(matrix.row_bytes % size == 0, "rows ", matrix.row_bytes, " bytes apart hold no elements of ", size);
  return cublas_size(std::max({matrix.row_bytes / size, matrix.cols, index{1}}));
}

/// y = x W^T with w [out, in], or, `transposed`, y = x W with w [in, out]; y [T, out], x [T, in]. x is stored
/// as w is, y likewise or as f32. cuBLAS thinks in columns, so to it each matrix is its transposed, and it is
/// asked for y^T = W x^T.
inline void multiply_stored(const context& on, const mutable_stored_view<device_space>& y,
                            const stored_view<device_space>& x, const stored_view<device_space>& w,
                            bool transposed, product_mode mode = product_mode::replace) {
  assert(x.type == w.type && y.rows == x.rows);
  assert(y.cols == (transposed ? w.cols : w.rows) && x.cols == (transposed ? w.rows : w.cols));
  const float one = 1, earlier = mode == product_mode::add ? 1.0f : 0.0f;
  COREMATCHING_CUDA_CHECK(
      cublasGemmEx(on.cublas, transposed ? CUBLAS_OP_N : CUBLAS_OP_T, CUBLAS_OP_N, cublas_size(y.cols),
                   cublas_size(y.rows), cublas_size(x.cols), &one, w.data, cublas_type(w.type),
                   leading_dimension(w), x.data, cublas_type(x.type), leading_dimension(x), &earlier, y.data,
                   cublas_type(y.type), leading_dimension(y), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

/// Uninitialised rows of `type` in `memory`, each beginning at a multiple of 16 bytes.
inline mutable_stored_view<device_space> rows_in(const context& on, workspace& memory, dtype type, index rows,
                                                 index cols) {
  const index row_bytes = aligned_row_bytes(type, cols);
  return {memory.at_least<std::byte>(on.stream, rows * row_bytes), type, rows, cols, row_bytes};
}

/// x as weights of `type` are multiplied with it: itself in f32, rounded and without gaps in `memory`
/// otherwise. Values beyond the range of f16 become infinite.
inline stored_view<device_space> tokens_as(const context& on, workspace& memory, const const_device_rows& x,
                                           dtype type) {
  if (type == dtype::f32) return x;
  const auto rounded = rows_in(on, memory, type, x.rows, x.cols);
  store_rows(on, rounded, x);
  return rounded;
}

/// y = x W, or added to it; y [T, D], x [T, N], w [N, D], N at least 1. `memory` holds the rounded x.
inline void multiply_transposed(const context& on, workspace& memory, device_rows y, const_device_rows x,
                                const stored_view<device_space>& w, product_mode mode) {
  multiply_stored(on, y, tokens_as(on, memory, x, w.type), w, true, mode);
}

}  // namespace corematching::cuda::detail

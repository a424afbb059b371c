// SPDX-License-Identifier: Apache-2.0
// Products of column-major matrices against sums written out, in every layout and type.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "corematching/core/dtype.hpp"
#include "on_device.hpp"

namespace {

using namespace corematching;
using namespace corematching::cuda_emulator_test;
using std::vector;

constexpr int m = 5, n = 7, k = 9, batches = 2;
// Rows apart by more than there are: of A and A^T, B and B^T, C.
constexpr int ld = 11;

float number(int i) {
  return static_cast<float>(i * 29 % 17 - 8) / 8;
}

template <class T>
T stored(float value) {
  if constexpr (std::is_same_v<T, f16>) return to_f16(value);
  if constexpr (std::is_same_v<T, bf16>) return to_bf16(value);
  if constexpr (std::is_same_v<T, float>) return value;
}

template <class T>
constexpr cudaDataType_t type_of = std::is_same_v<T, f16>    ? CUDA_R_16F
                                   : std::is_same_v<T, bf16> ? CUDA_R_16BF
                                                             : CUDA_R_32F;

template <class T>
vector<T> numbers(int count, int first) {
  vector<T> values;
  for (int i = 0; i < count; ++i) values.push_back(stored<T>(number(first + i)));
  return values;
}

/// Batch `batch` of alpha op(A) op(B) + beta C at [row, column].
template <class In, class Out>
float expected(const vector<In>& a, const vector<In>& b, const vector<Out>& c, bool transposed_a,
               bool transposed_b, float beta, int batch, int row, int column) {
  float sum = 0;
  for (int l = 0; l < k; ++l)
    sum += to_float(a[batch * ld * ld + (transposed_a ? l + row * ld : row + l * ld)]) *
           to_float(b[batch * ld * ld + (transposed_b ? column + l * ld : l + column * ld)]);
  return to_float(
      stored<Out>(2 * sum + (beta == 0 ? 0 : beta * to_float(c[batch * ld * ld + row + column * ld]))));
}

template <class In, class Out>
void check_product(cublasOperation_t of_a, cublasOperation_t of_b, float beta) {
  const cuda::stream_handle stream = cuda::make_stream();
  const cuda::cublas_handle handle = cuda::make_cublas(stream.get());
  const vector<In> a = numbers<In>(batches * ld * ld, 1), b = numbers<In>(batches * ld * ld, 5);
  // What is not read with beta = 0 may be anything.
  const vector<Out> c =
      beta == 0 ? vector<Out>(batches * ld * ld, stored<Out>(NAN)) : numbers<Out>(batches * ld * ld, 3);
  on_device<In> left(a), right(b);
  on_device<Out> result(c);
  const float alpha = 2;
  ASSERT_EQ(
      cublasGemmStridedBatchedEx(handle.get(), of_a, of_b, m, n, k, &alpha, left.data(), type_of<In>, ld,
                                 ld * ld, right.data(), type_of<In>, ld, ld * ld, &beta, result.data(),
                                 type_of<Out>, ld, ld * ld, batches, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      CUBLAS_STATUS_SUCCESS);
  const vector<Out> found = result.values();
  for (int batch = 0; batch < batches; ++batch)
    for (int i = 0; i < ld * ld; ++i) {
      const int row = i % ld, column = i / ld;
      const float value = to_float(found[batch * ld * ld + i]);
      if (row < m && column < n) {
        EXPECT_EQ(value,
                  expected(a, b, c, of_a != CUBLAS_OP_N, of_b != CUBLAS_OP_N, beta, batch, row, column));
      } else if (beta != 0) {
        EXPECT_EQ(value, to_float(c[batch * ld * ld + i]));  // left alone
      }
    }
}

TEST(cuda_cublas, multiplies_in_every_layout_and_type) {
  for (const cublasOperation_t of_a : {CUBLAS_OP_N, CUBLAS_OP_T})
    for (const cublasOperation_t of_b : {CUBLAS_OP_N, CUBLAS_OP_T})
      for (const float beta : {0.0f, 0.5f}) {
        check_product<float, float>(of_a, of_b, beta);
        check_product<f16, float>(of_a, of_b, beta);
        check_product<f16, f16>(of_a, of_b, beta);
        check_product<bf16, float>(of_a, of_b, beta);
        check_product<bf16, bf16>(of_a, of_b, beta);
      }
}

TEST(cuda_cublas, refuses_arguments_that_cublas_refuses) {
  const cuda::stream_handle stream = cuda::make_stream();
  const cuda::cublas_handle handle = cuda::make_cublas(stream.get());
  on_device<float> a(64, 1), b(64, 1), c(64, 1);
  const float one = 1;
  const auto multiply = [&](cublasOperation_t of_a, int rows, int lda, int ldb, int ldc,
                            cudaDataType_t type = CUDA_R_32F,
                            cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
    return cublasGemmEx(handle.get(), of_a, CUBLAS_OP_N, rows, 3, 4, &one, a.data(), CUDA_R_32F, lda,
                        b.data(), type, ldb, &one, c.data(), CUDA_R_32F, ldc, compute, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 2, 4, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(CUBLAS_OP_T, 2, 4, 4, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 1, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(CUBLAS_OP_T, 2, 3, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 2, 3, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 2, 4, 1), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(CUBLAS_OP_N, -1, 2, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(static_cast<cublasOperation_t>(7), 2, 2, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 2, 4, 2, CUDA_R_16F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(multiply(CUBLAS_OP_N, 2, 2, 4, 2, CUDA_R_32F, CUBLAS_COMPUTE_16F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cublasSgemm(nullptr, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), 1, b.data(), 1, &one,
                        c.data(), 1),
            CUBLAS_STATUS_NOT_INITIALIZED);
}

}  // namespace

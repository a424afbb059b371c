// SPDX-License-Identifier: Apache-2.0
// Matrix products with sums in binary32, in the order of k.
#include "cublas_v2.h"

#include <algorithm>
#include <vector>

#include "cuda_emulator/small_floats.hpp"
#include "state.hpp"
#include "stream.hpp"

using namespace cuda_emulator::detail;

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace {

/// Elements of one of the types that a matrix may have, as binary32.
struct typed_elements {
  char* data;
  cudaDataType_t type;

  std::size_t element_bytes() const { return type == CUDA_R_32F ? 4 : 2; }
  float get(long long i) const {
    if (type == CUDA_R_32F) return reinterpret_cast<const float*>(data)[i];
    const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(data)[i];
    return type == CUDA_R_16F ? from_half(bits) : from_bfloat16(bits);
  }
  void set(long long i, float value) const {
    if (type == CUDA_R_32F)
      reinterpret_cast<float*>(data)[i] = value;
    else
      reinterpret_cast<std::uint16_t*>(data)[i] = type == CUDA_R_16F ? to_half(value) : to_bfloat16(value);
  }
  typed_elements from(long long i) const {
    return {data + i * static_cast<long long>(element_bytes()), type};
  }
};

struct operand {
  cublasOperation_t op;
  typed_elements elements;
  int stride;
  long long batch_stride;

  /// Element of op(matrix).
  float get(long long row, long long column) const {
    return elements.get(op == CUBLAS_OP_N ? row + column * stride : column + row * stride);
  }
};

struct product {
  int m, n, k;
  float alpha, beta;
  operand a, b, c;
  int batches;
};

bool is_float(cudaDataType_t type) {
  return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

bool is_operation(cublasOperation_t op) {
  return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C;
}

cublasStatus_t check(const product& p) {
  if (!is_operation(p.a.op) || !is_operation(p.b.op) || p.m < 0 || p.n < 0 || p.k < 0 || p.batches < 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  const int rows_of_a = p.a.op == CUBLAS_OP_N ? p.m : p.k, rows_of_b = p.b.op == CUBLAS_OP_N ? p.k : p.n;
  if (p.a.stride < std::max(1, rows_of_a) || p.b.stride < std::max(1, rows_of_b) ||
      p.c.stride < std::max(1, p.m))
    return CUBLAS_STATUS_INVALID_VALUE;
  const cudaDataType_t in = p.a.elements.type, out = p.c.elements.type;
  if (!is_float(in) || in != p.b.elements.type || (out != in && out != CUDA_R_32F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

void multiply_one(const product& p, long long batch) {
  const auto place = [&](operand at) {
    at.elements = at.elements.from(batch * at.batch_stride);
    return at;
  };
  const operand a = place(p.a), b = place(p.b), c = place(p.c);
  std::vector<float> rows(static_cast<std::size_t>(p.m) * static_cast<std::size_t>(p.k)), column(p.k);
  for (long long i = 0; i < p.m; ++i)
    for (long long l = 0; l < p.k; ++l) rows[i * p.k + l] = a.get(i, l);
  for (long long j = 0; j < p.n; ++j) {
    for (long long l = 0; l < p.k; ++l) column[l] = b.get(l, j);
    for (long long i = 0; i < p.m; ++i) {
      float sum = 0;
      for (long long l = 0; l < p.k; ++l) sum += rows[i * p.k + l] * column[l];
      const long long at = i + j * c.stride;
      c.elements.set(at, p.alpha * sum + (p.beta == 0 ? 0 : p.beta * c.elements.get(at)));
    }
  }
}

cublasStatus_t queue(const char* name, cublasHandle_t handle, product p, const void* alpha, const void* beta,
                     cublasComputeType_t compute) {
  api_call call(name);
  if (call.fails()) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (compute < CUBLAS_COMPUTE_32F || compute > CUBLAS_COMPUTE_32F_FAST_TF32)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (const cublasStatus_t status = check(p); status != CUBLAS_STATUS_SUCCESS) return status;
  p.alpha = *static_cast<const float*>(alpha);
  p.beta = *static_cast<const float*>(beta);
  const cudaError_t queued = submit(handle->stream, operation_kind::library, [p] {
    for (long long batch = 0; batch < p.batches; ++batch) multiply_one(p, batch);
  });
  return queued == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

typed_elements elements(const void* data, cudaDataType_t type) {
  return {static_cast<char*>(const_cast<void*>(data)), type};
}

}  // namespace

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown status";
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return cublasGetStatusName(status);
}

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  api_call call("cublasCreate");
  if (call.fails()) return CUBLAS_STATUS_ALLOC_FAILED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  api_call call("cublasSetStream");
  if (call.fails()) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const bool usable =
      reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0 && is_device_memory(workspace, bytes);
  return bytes == 0 || usable ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m,
                           int n, int k, const float* alpha, const float* a, int lda, const float* b, int ldb,
                           const float* beta, float* c, int ldc) {
  return queue("cublasSgemm", handle,
               {m,
                n,
                k,
                0,
                0,
                {of_a, elements(a, CUDA_R_32F), lda, 0},
                {of_b, elements(b, CUDA_R_32F), ldb, 0},
                {CUBLAS_OP_N, elements(c, CUDA_R_32F), ldc, 0},
                1},
               alpha, beta, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t of_a,
                                         cublasOperation_t of_b, int m, int n, int k, const float* alpha,
                                         const float* a, int lda, long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batches) {
  return queue("cublasSgemmStridedBatched", handle,
               {m,
                n,
                k,
                0,
                0,
                {of_a, elements(a, CUDA_R_32F), lda, stride_a},
                {of_b, elements(b, CUDA_R_32F), ldb, stride_b},
                {CUBLAS_OP_N, elements(c, CUDA_R_32F), ldc, stride_c},
                batches},
               alpha, beta, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m,
                            int n, int k, const void* alpha, const void* a, cudaDataType_t type_a, int lda,
                            const void* b, cudaDataType_t type_b, int ldb, const void* beta, void* c,
                            cudaDataType_t type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
  return queue("cublasGemmEx", handle,
               {m,
                n,
                k,
                0,
                0,
                {of_a, elements(a, type_a), lda, 0},
                {of_b, elements(b, type_b), ldb, 0},
                {CUBLAS_OP_N, elements(c, type_c), ldc, 0},
                1},
               alpha, beta, compute);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t of_a,
                                          cublasOperation_t of_b, int m, int n, int k, const void* alpha,
                                          const void* a, cudaDataType_t type_a, int lda, long long stride_a,
                                          const void* b, cudaDataType_t type_b, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType_t type_c, int ldc,
                                          long long stride_c, int batches, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
  return queue("cublasGemmStridedBatchedEx", handle,
               {m,
                n,
                k,
                0,
                0,
                {of_a, elements(a, type_a), lda, stride_a},
                {of_b, elements(b, type_b), ldb, stride_b},
                {CUBLAS_OP_N, elements(c, type_c), ldc, stride_c},
                batches},
               alpha, beta, compute);
}

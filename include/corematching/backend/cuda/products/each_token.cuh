// SPDX-License-Identifier: Apache-2.0
// Products of a handful of tokens that each have rows of the weights of their own. Each token's are formed as
// they are for a token alone, bit for bit; blocks that compute the same part of them for different tokens
// follow each other, so that a row which several tokens want comes from memory once and then from the L2
// cache.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/products/products.cuh"
#include "corematching/backend/cuda/products/row_products.cuh"
#include "corematching/backend/cuda/products/row_sums.cuh"

namespace corematching::cuda::detail {

/// The rows of up to largest_decode_batch tokens, as a kernel takes them.
struct rows_of_tokens {
  const std::int32_t* chosen[largest_decode_batch] = {};
  index counts[largest_decode_batch] = {};
  index tokens = 0;

  rows_of_tokens(std::span<const neurons> of_rows, index all) : tokens(std::ssize(of_rows)) {
    assert(tokens <= largest_decode_batch);
    for (std::size_t t = 0; t < of_rows.size(); ++t) {
      chosen[t] = of_rows[t] ? of_rows[t]->data : nullptr;
      counts[t] = count_of(of_rows[t], all);
    }
  }

  index most() const { return *std::max_element(counts, counts + tokens); }
  __device__ restricted_weight of(index token, const stored_view<device_space>& w) const {
    return {w, chosen[token], counts[token]};
  }
};

/// Row `t` of a matrix.
template <class T>
__device__ inline matrix_view<T, device_space> row_of_token(const matrix_view<T, device_space>& m, index t) {
  return {m.data + t * m.stride, 1, m.cols, m.stride};
}

/// The token of a block, and the number of this thread's warp among those of that token.
struct warp_of_token {
  index token, warp;
  __device__ explicit warp_of_token(index tokens)
      : token(blockIdx.x % tokens),
        warp(index{blockIdx.x} / tokens * product_warps + static_cast<int>(threadIdx.x) / warp_size) {}
};

template <class T, int Pairs>
__global__ void __launch_bounds__(product_threads, product_blocks<1>)
    gated_each_kernel(rows_of_tokens of, device_rows y, const_device_rows x, stored_view<device_space> gate,
                      stored_view<device_space> up, activation act, index loadable) {
  wait_for_earlier_kernels();
  const warp_of_token at(of.tokens);
  gate_rows_of_warp<T, 1, Pairs>(at.warp, row_of_token(y, at.token), row_of_token(x, at.token),
                                 of.of(at.token, gate), of.of(at.token, up), act, loadable);
}

template <class T, int Rows>
__global__ void __launch_bounds__(product_threads, product_blocks<1>)
    scaled_each_kernel(rows_of_tokens of, device_rows y, const_device_rows x, stored_view<device_space> w,
                       const_device_rows factors, index loadable) {
  wait_for_earlier_kernels();
  const warp_of_token at(of.tokens);
  scale_rows_of_warp<T, Rows>(at.warp, row_of_token(y, at.token), row_of_token(x, at.token),
                              of.of(at.token, w), factors.data + at.token * factors.stride, loadable);
}

inline dim3 each_grid(const rows_of_tokens& of, index rows_of_one_warp) {
  return dim3(static_cast<unsigned>(ceil_div(of.most(), rows_of_one_warp * product_warps) * of.tokens));
}

/// Calls body(first token, count) for parts of the tokens that one kernel takes.
template <class Body>
void for_token_parts(std::span<const neurons> of_rows, index all, Body&& body) {
  for_parts(std::ssize(of_rows), largest_decode_batch, [&](index first, index count) {
    const rows_of_tokens of(of_rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
                            all);
    if (of.most() > 0) body(first, count, of);
  });
}

/// y[t, i] = act(x[t] . gate[n]) * (x[t] . up[n]) for the i-th neuron n of token t.
inline void gated_each(const context& on, device_rows y, const_device_rows x,
                       const stored_view<device_space>& gate, const stored_view<device_space>& up,
                       activation act, std::span<const neurons> of_rows) {
  visit_on_device(gate.type, [&]<class T>() {
    constexpr int pairs = rows_of_warp<1> / 2;
    const index loadable = std::min(loadable_columns<T>(x, gate), loadable_columns<T>(x, up));
    for_token_parts(of_rows, gate.rows, [&](index first, index count, const rows_of_tokens& of) {
      launch_early(on, each_grid(of, pairs), dim3(product_threads), gated_each_kernel<T, pairs>, of,
                   y.middle_rows(first, count), x.middle_rows(first, count), gate, up, act, loadable);
    });
  });
}

/// y[t, i] = factors[t, n] (x[t] . w[n]) for the i-th neuron n of token t.
inline void scaled_each(const context& on, device_rows y, const_device_rows x,
                        const stored_view<device_space>& w, const_device_rows factors,
                        std::span<const neurons> of_rows) {
  visit_on_device(w.type, [&]<class T>() {
    constexpr int rows = rows_of_warp<1>;
    for_token_parts(of_rows, w.rows, [&](index first, index count, const rows_of_tokens& of) {
      launch_early(on, each_grid(of, rows), dim3(product_threads), scaled_each_kernel<T, rows>, of,
                   y.middle_rows(first, count), x.middle_rows(first, count), w,
                   factors.middle_rows(first, count), loadable_columns<T>(x, w));
    });
  });
}

/// In how many slices the rows of each token are summed.
struct slices_of_tokens {
  int of[largest_decode_batch] = {};
};

/// Sums go to y where a token has one slice, otherwise to partial [tokens, slices, cols].
template <class T>
__global__ void __launch_bounds__(sum_threads, sum_blocks<1>)
    sum_each_kernel(rows_of_tokens of, slices_of_tokens slices, device_rows y, float* partial,
                    const_device_rows x, stored_view<device_space> w, bool whole) {
  wait_for_earlier_kernels();
  const index token = blockIdx.x % of.tokens;
  const int own = slices.of[token];
  if (static_cast<int>(blockIdx.y) >= own) return;
  slice_sums to{y.data + token * y.stride, y.stride, 0, product_mode::add};
  if (own > 1) to = {partial + token * gridDim.y * y.cols, y.cols, y.cols, product_mode::replace};
  sum_rows_of_slice<T, 1>(blockIdx.y, own, blockIdx.x / of.tokens, to, row_of_token(x, token),
                          of.of(token, w), whole);
}

/// y[t] += the sums of its slices, in their order.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    add_slices_of_each_kernel(device_rows y, const float* partial, slices_of_tokens slices, index most) {
  wait_for_earlier_kernels();
  const index element = index{blockIdx.x} * Threads + threadIdx.x;
  if (element >= y.rows * y.cols) return;
  const index token = element / y.cols, column = element % y.cols;
  if (slices.of[token] == 1) return;
  float sum = 0;
#pragma unroll 8
  for (int s = 0; s < slices.of[token]; ++s) sum += partial[(token * most + s) * y.cols + column];
  store_product(product_mode::add, y.data + token * y.stride + column, sum);
}

/// y[t] += sum over i of x[t, i] * w[n], n the i-th neuron of token t.
inline void add_weighted_each(const context& on, workspace& memory, device_rows y, const_device_rows x,
                              const stored_view<device_space>& w, std::span<const neurons> of_rows) {
  const index cols = y.cols;
  if (cols == 0) return;
  visit_elements(w.type, [&]<class T>() {
    const bool whole = has_aligned_rows(w) && cols % per_load<T> == 0;
    for_token_parts(of_rows, w.rows, [&](index first, index count, const rows_of_tokens& of) {
      slices_of_tokens slices;
      for (index t = 0; t < count; ++t)
        slices.of[t] = static_cast<int>(slices_for<T, 1>(on, of.counts[t], cols));
      const index most = *std::max_element(slices.of, slices.of + count);
      float* const partial = most > 1 ? memory.at_least<float>(on.stream, count * most * cols) : nullptr;
      const auto rows = y.middle_rows(first, count);
      const dim3 grid(static_cast<unsigned>(ceil_div(cols, sum_columns<T>) * count),
                      static_cast<unsigned>(most));
      launch_early(on, grid, dim3(sum_threads), sum_each_kernel<T>, of, slices, rows, partial,
                   x.middle_rows(first, count), w, whole);
      if (most == 1) return;
      launch_early(on, dim3(static_cast<unsigned>(ceil_div(count * cols, add_slices_threads))),
                   dim3(add_slices_threads), add_slices_of_each_kernel<add_slices_threads>, rows, partial,
                   slices, most);
    });
  });
}

}  // namespace corematching::cuda::detail

// SPDX-License-Identifier: Apache-2.0
// The matrix products of a layer: by kernels that read every weight once where there are few tokens, by
// cuBLAS where there are many. cuBLAS multiplies whole matrices, so selected rows are gathered for it, and
// rows in two planes put together; rows and intermediate values are cut into parts that keep the workspaces
// bounded.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <concepts>
#include <cstddef>

#include "corematching/backend/cuda/products/gemm.cuh"
#include "corematching/backend/cuda/products/row_products.cuh"
#include "corematching/backend/cuda/products/row_sums.cuh"
#include "corematching/backend/cuda/rows.cuh"

namespace corematching::cuda::detail {

/// Memory of the products, kept from call to call.
struct product_workspaces {
  workspace tokens;    // x in the type of the weights
  workspace partials;  // sums of slices
  workspace weights;   // gathered rows of one or two matrices
  workspace gates;
  workspace ups;
  /// Bytes that gathered rows of one matrix, or intermediate values of one kind, should take at most.
  index most_bytes = index{64} << 20;
};

inline constexpr int column_threads = 256;

/// A grid with a thread for every column; its y steps through the rows.
inline dim3 column_grid(index rows, index cols) {
  return dim3(static_cast<unsigned>(ceil_div(cols, column_threads)),
              static_cast<unsigned>(std::min(rows, most_blocks_y)));
}

/// y[t] += bias
template <int Threads>
__global__ void __launch_bounds__(Threads) add_bias_kernel(device_rows y, const float* bias) {
  const index column = index{blockIdx.x} * Threads + threadIdx.x;
  if (column >= y.cols) return;
  for (index t = blockIdx.y; t < y.rows; t += gridDim.y) y.data[t * y.stride + column] += bias[column];
}

/// Neighbouring elements that one load or store moves.
template <class T, int Width>
struct alignas(Width * sizeof(T)) element_group {
  T values[Width];
};

/// y = act(gate) * up; gate and up stored as T, rows `pitch` elements apart. Groups of `Width` columns: 1, or
/// 4 where y has a multiple of them and all rows are aligned. Rows are indexed by groups, since nvcc 13
/// splits a store to row + 4 * group, in 64 bits, into its elements.
template <class T, int Width>
__global__ void __launch_bounds__(column_threads)
    gate_kernel(device_rows y, const T* gate, const T* up, index pitch, activation act) {
  const index group = index{blockIdx.x} * column_threads + threadIdx.x;
  if (group * Width >= y.cols) return;
  for (index t = blockIdx.y; t < y.rows; t += gridDim.y) {
    const auto gates = reinterpret_cast<const element_group<T, Width>*>(gate + t * pitch)[group];
    const auto ups = reinterpret_cast<const element_group<T, Width>*>(up + t * pitch)[group];
    element_group<float, Width> gated;
#pragma unroll
    for (int i = 0; i < Width; ++i)
      gated.values[i] = activated(act, widened(gates.values[i])) * widened(ups.values[i]);
    reinterpret_cast<element_group<float, Width>*>(y.data + t * y.stride)[group] = gated;
  }
}

/// The selected rows of `w`, or all from `first` on, copied to `to`: where they stand in planes, put
/// together.
inline stored_view<device_space> gathered(const context& on, const mutable_stored_view<device_space>& to,
                                          const stored_view<device_space>& w, const neurons& selection,
                                          index first) {
  if (has_planes(w.type))
    merge_rows(on, to, w, selection ? selection->data + first : nullptr, first);
  else
    gather_rows(on, to, w, {selection->data + first, to.rows});
  return to;
}

/// Calls body(first, count) for parts of at most `most` of `all`, one after the other.
template <std::invocable<index, index> Body>
void for_parts(index all, index most, Body&& body) {
  for (index first = 0; first < all; first += most) body(first, std::min(most, all - first));
}

/// Rows of `row_bytes` that fit into `bytes`, at least one.
inline index rows_within(index bytes, index row_bytes) {
  return std::max(bytes / std::max(row_bytes, index{1}), index{1});
}

/// The columns first..first+count.
template <class T>
matrix_view<T, device_space> middle_cols(const matrix_view<T, device_space>& m, index first, index count) {
  return {m.data + first, m.rows, count, m.stride};
}

/// The product of many tokens, which are as the weight is stored, by cuBLAS.
inline void multiply_many(const context& on, product_workspaces& memory,
                          const projection<device_space>& which, const stored_view<device_space>& tokens,
                          product_mode mode) {
  const auto& [y, w, bias] = which;
  if (y.cols == 0) return;
  if (has_planes(w.type)) {
    const index most = rows_within(memory.most_bytes, aligned_row_bytes(whole_of(w.type), w.cols));
    for_parts(w.rows, most, [&, &y = y, &w = w](index first, index count) {
      const auto room = rows_in(on, memory.weights, whole_of(w.type), count, w.cols);
      multiply_stored(on, middle_cols(y, first, count), tokens, gathered(on, room, w, {}, first), false,
                      mode);
    });
  } else {
    multiply_stored(on, y, tokens, w, false, mode);
  }
  if (!bias.empty())
    launch(on.stream, column_grid(y.rows, y.cols), dim3(column_threads), add_bias_kernel<column_threads>, y,
           bias.data);
}

/// As project(), of weights of one type, row_products::most of them at most.
inline void project_alike(const context& on, product_workspaces& memory, projections which,
                          const_device_rows x, product_mode mode) {
  if (x.rows <= largest_decode_batch || x.cols == 0) {  // cuBLAS is asked for no product of length 0
    for_parts(x.rows, largest_decode_batch, [&](index first, index count) {
      std::array<projection<device_space>, row_products::most> part;
      for (std::size_t i = 0; i < which.size(); ++i)
        part[i] = {which[i].y.middle_rows(first, count), which[i].w, which[i].bias};
      multiply_rows(on, projections(part).first(which.size()), x.middle_rows(first, count), mode);
    });
    return;
  }
  const auto tokens = tokens_as(on, memory.tokens, x, whole_of(which.front().w.type));
  for (const auto& each : which) multiply_many(on, memory, each, tokens, mode);
}

/// Of each projection y = x W^T + bias, or added to it. Neighbours whose weights are of one type have one
/// kernel for a few rows, and many rows rounded once.
inline void project(const context& on, product_workspaces& memory, projections which, const_device_rows x,
                    product_mode mode = product_mode::replace) {
  if (x.rows == 0) return;
  const auto alike = [](const auto& a, const auto& b) { return a.w.type == b.w.type; };
  while (!which.empty()) {
    std::size_t count = 1;
    while (count < std::min<std::size_t>(which.size(), row_products::most) && alike(which[0], which[count]))
      ++count;
    project_alike(on, memory, which.first(count), x, mode);
    which = which.subspan(count);
  }
}

/// y = x W^T + bias, or added to it; y [T, N], x [T, D], w [N, D], bias [N] or empty.
inline void matmul(const context& on, product_workspaces& memory, device_rows y, const_device_rows x,
                   const stored_view<device_space>& w, vector_view<const float, device_space> bias,
                   product_mode mode = product_mode::replace) {
  assert(y.rows == x.rows && y.cols == w.rows && x.cols == w.cols && (bias.empty() || bias.size == w.rows));
  const projection<device_space> one{y, w, bias};
  project(on, memory, {&one, 1}, x, mode);
}

/// y = x W^T by the upper plane of w alone; y [T, N], x [T, D], w [N, D].
inline void coarse_matmul(const context& on, device_rows y, const_device_rows x,
                          const stored_view<device_space>& w) {
  for_parts(x.rows, largest_decode_batch, [&](index first, index count) {
    multiply_coarse_rows(on, y.middle_rows(first, count), x.middle_rows(first, count), w);
  });
}

/// y = act(x Wgate^T) * (x Wup^T) by cuBLAS, whole matrices. Both products keep the type of the weights.
inline void gate_products(const context& on, product_workspaces& memory, device_rows y,
                          const stored_view<device_space>& x, const stored_view<device_space>& gate,
                          const stored_view<device_space>& up, activation act) {
  const index part = rows_within(memory.most_bytes, aligned_row_bytes(gate.type, y.cols));
  for_parts(y.rows, part, [&](index first, index count) {
    const auto gates = rows_in(on, memory.gates, gate.type, count, y.cols);
    const auto ups = rows_in(on, memory.ups, gate.type, count, y.cols);
    multiply_stored(on, gates, x.middle_rows(first, count), gate, false);
    multiply_stored(on, ups, x.middle_rows(first, count), up, false);
    visit_elements(gate.type, [&]<class T>() {
      const bool fours = has_aligned_rows(y) && y.cols % 4 == 0;
      launch(on.stream, column_grid(count, fours ? y.cols / 4 : y.cols), dim3(column_threads),
             fours ? gate_kernel<T, 4> : gate_kernel<T, 1>, y.middle_rows(first, count),
             reinterpret_cast<const T*>(gates.data), reinterpret_cast<const T*>(ups.data),
             gates.row_bytes / index{sizeof(T)}, act);
    });
  });
}

/// y = act(x Wgate^T) * (x Wup^T), columns = the selected neurons in their order; y [T, selected], x [T, D],
/// gate and up [N, D], stored alike.
inline void gated_up(const context& on, product_workspaces& memory, device_rows y, const_device_rows x,
                     const stored_view<device_space>& gate, const stored_view<device_space>& up,
                     activation act, const neurons& selection) {
  if (y.rows == 0 || y.cols == 0) return;
  if (x.rows <= largest_decode_batch || x.cols == 0) {
    for_parts(x.rows, largest_decode_batch, [&](index first, index count) {
      gated_rows(on, y.middle_rows(first, count), x.middle_rows(first, count), gate, up, act, selection);
    });
    return;
  }
  const dtype type = whole_of(gate.type);
  const stored_view<device_space> tokens = tokens_as(on, memory.tokens, x, type);
  if (!selection && !has_planes(gate.type)) return gate_products(on, memory, y, tokens, gate, up, act);
  const index most = rows_within(memory.most_bytes, aligned_row_bytes(type, gate.cols));
  for_parts(y.cols, most, [&](index first, index count) {
    const auto room = rows_in(on, memory.weights, type, 2 * count, gate.cols);
    gate_products(on, memory, middle_cols(y, first, count), tokens,
                  gathered(on, room.middle_rows(0, count), gate, selection, first),
                  gathered(on, room.middle_rows(count, count), up, selection, first), act);
  });
}

/// y = sum over neurons of x[:, i] * w[n], n the i-th selected neuron, or added to it; y [T, D], x [T,
/// selected], w [N, D]. Without neurons the sum is 0.
inline void weighted_rows(const context& on, product_workspaces& memory, device_rows y, const_device_rows x,
                          const stored_view<device_space>& w, const neurons& selection,
                          product_mode mode = product_mode::replace) {
  if (y.rows == 0 || y.cols == 0) return;
  if (x.rows <= largest_decode_batch || x.cols == 0) {
    for_parts(x.rows, largest_decode_batch, [&](index first, index count) {
      sum_weighted_rows(on, memory.partials, y.middle_rows(first, count), x.middle_rows(first, count), w,
                        selection, mode);
    });
    return;
  }
  if (!selection) return multiply_transposed(on, memory.tokens, y, x, w, mode);
  const index most = rows_within(memory.most_bytes, aligned_row_bytes(w.type, w.cols));
  for_parts(x.cols, most, [&](index first, index count) {
    const auto room = rows_in(on, memory.weights, w.type, count, w.cols);
    const auto rows = gathered(on, room, w, selection, first);
    multiply_stored(on, y, tokens_as(on, memory.tokens, middle_cols(x, first, count), w.type), rows, true,
                    first == 0 ? mode : product_mode::add);
  });
}

}  // namespace corematching::cuda::detail

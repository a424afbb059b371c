// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with a handful of tokens (decode): every weight is read once, in its storage
// type, at the speed of the memory. A warp forms the dot products of a few rows with all tokens: each lane
// loads 16 bytes of every row, several times before it uses them, so that enough of the memory's answers are
// under way; the tokens come out of the L1 cache, once for all rows of the warp.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <span>
#include <type_traits>

#include "corematching/backend/cuda/activations.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/products/restriction.cuh"
#include "corematching/backend/cuda/weight_rows.cuh"
#include "corematching/core/elements.cuh"
#include "corematching/core/launch.cuh"
#include "corematching/core/warp.cuh"

namespace corematching::cuda::detail {

/// Up to this many tokens are multiplied by the kernels that read weights as they are.
inline constexpr index largest_decode_batch = 8;

inline constexpr int product_warps = 4;
inline constexpr int product_threads = product_warps * warp_size;
/// Blocks that a processor must be able to hold: 80 registers for a thread with one token, 128 with more.
/// Without this bound the compiler saves registers and sets loads under way one after the other.
template <int Tokens>
inline constexpr int product_blocks = Tokens == 1 ? 6 : 4;

/// Rows that a warp walks at once. More tokens need more of them: an element of x that is loaded from the L1
/// cache, which is slower than registers, must serve more multiplications.
template <int Tokens>
inline constexpr int rows_of_warp = Tokens <= 2 ? 2 : 4;

/// 16-byte loads of each row that a lane has under way at once: as many as the registers allow.
template <int Tokens, int Rows>
inline constexpr int loads_of_lane = Tokens <= 2 ? 8 / Rows : (Tokens <= 4 ? 8 / Rows : 4 / Rows);

/// As many elements of a token as a load of a row brings.
template <int Size>
__device__ inline void load_token(const float* from, float (&to)[Size]) {
#pragma unroll
  for (int i = 0; i < Size; i += 4) {
    const float4 part = *reinterpret_cast<const float4*>(from + i);
    to[i] = part.x;
    to[i + 1] = part.y;
    to[i + 2] = part.z;
    to[i + 3] = part.w;
  }
}

/// The rows and tokens of one warp, and what a lane has summed of their dot products.
template <class T, int Tokens, int Rows>
struct dot_products {
  using row = weight_row<T>;
  static constexpr int size = row::size;         // elements of one load
  static constexpr int step = warp_size * size;  // from a load of a lane to its next one

  row rows[Rows];
  const float* first_token;
  int tokens[Tokens];  // elements from the first token to each; 32 bits, since 8 rows are below 8 GiB
  float sums[Rows][Tokens] = {};

  /// There are templates for 1, 2, 4 and 8 tokens: what is missing repeats the last token and is not stored.
  __device__ explicit dot_products(const const_device_rows& x) : first_token(x.data) {
#pragma unroll
    for (int t = 0; t < Tokens; ++t) tokens[t] = static_cast<int>((t < x.rows ? t : x.rows - 1) * x.stride);
  }

  /// Loads from `column` on: `Loads` in every row, all before the first is used.
  template <int Loads>
  __device__ void add_loads(index column) {
    typename row::loaded loaded[Loads][Rows];
#pragma unroll
    for (int l = 0; l < Loads; ++l)
#pragma unroll
      for (int r = 0; r < Rows; ++r) loaded[l][r] = rows[r].load(column + l * step);
#pragma unroll
    for (int l = 0; l < Loads; ++l) {
      float weights[Rows][size];
#pragma unroll
      for (int r = 0; r < Rows; ++r) row::widen(loaded[l][r], weights[r]);
      add_products(weights, column + l * step);
    }
  }

  __device__ void add_products(const float (&weights)[Rows][size], index column) {
#pragma unroll
    for (int t = 0; t < Tokens; ++t) {
      float x[size];
      load_token(first_token + column + tokens[t], x);
#pragma unroll
      for (int r = 0; r < Rows; ++r)
#pragma unroll
        for (int i = 0; i < size; ++i) sums[r][t] += weights[r][i] * x[i];
    }
  }

  __device__ void add_element(index column) {
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
      const float weight = rows[r].at(column);
#pragma unroll
      for (int t = 0; t < Tokens; ++t) sums[r][t] += weight * first_token[column + tokens[t]];
    }
  }

  /// The dot products of `cols` columns, of which the first `loadable` can be loaded several at a time.
  /// Afterwards every lane has all sums.
  __device__ void form(index loadable, index cols) {
    constexpr int loads = loads_of_lane<Tokens, Rows>;
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    index column = index{lane} * size;
    for (; column + (loads - 1) * step < loadable; column += loads * step) add_loads<loads>(column);
#pragma unroll 1
    for (; column < loadable; column += step) add_loads<1>(column);
#pragma unroll 1
    for (column = loadable + lane; column < cols; column += warp_size) add_element(column);
#pragma unroll
    for (int r = 0; r < Rows; ++r)
#pragma unroll
      for (int t = 0; t < Tokens; ++t) sums[r][t] = warp_sum(sums[r][t]);
  }

  /// sums[First + Step * (lane / Tokens)][lane % Tokens] for the lanes that this names: each stores one
  /// result.
  template <int First = 0, int Step = 1>
  __device__ float sum_of_lane(int lane) const {
    float mine = 0;
#pragma unroll
    for (int r = First; r < Rows; r += Step)
#pragma unroll
      for (int t = 0; t < Tokens; ++t)
        if (lane == r / Step * Tokens + t) mine = sums[r][t];
    return mine;
  }
};

/// The number of this thread's warp in the grid.
__device__ inline index warp_of_grid() {
  return index{blockIdx.x} * product_warps + static_cast<int>(threadIdx.x) / warp_size;
}

/// Whole weights that one kernel multiplies the same tokens with, each with where its product goes.
struct row_products {
  static constexpr index most = 3;  // queries, keys and values
  struct product {
    device_rows y;
    stored_view<device_space> w;
    const float* bias;
    index loadable;
  };
  product of[most];
};

/// y[t, i] = x[t] . w[i] + bias[i], or added to it, for product blockIdx.y; a warp for each `Rows` rows.
template <class T, int Tokens, int Rows>
__global__ void __launch_bounds__(product_threads, product_blocks<Tokens>)
    multiply_rows_kernel(const __grid_constant__ row_products products, const_device_rows x,
                         product_mode mode) {
  wait_for_earlier_kernels();
  static_assert(Rows * Tokens <= warp_size);
  const auto& [y, w, bias, loadable] = products.of[blockIdx.y];
  const index first = warp_of_grid() * Rows;
  if (first >= w.rows) return;  // the whole warp, and no block waits for it
  dot_products<T, Tokens, Rows> dots(x);
#pragma unroll
  for (int r = 0; r < Rows; ++r)  // a row too many repeats the last one
    dots.rows[r] = {w, first + r < w.rows ? first + r : w.rows - 1};
  dots.form(loadable, x.cols);
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const index place = first + lane / Tokens, token = lane % Tokens;
  const float sum = dots.sum_of_lane(lane);
  if (lane >= Rows * Tokens || place >= w.rows || token >= x.rows) return;
  store_product(mode, y.data + token * y.stride + place, sum + (bias ? bias[place] : 0.0f));
}

/// y[t, i] = act(x[t] . gate[row of i]) * (x[t] . up[row of i]) for the `Pairs` neurons of warp `warp`.
template <class T, int Tokens, int Pairs>
__device__ void gate_rows_of_warp(index warp, const device_rows& y, const const_device_rows& x,
                                  const restricted_weight& gate, const restricted_weight& up, activation act,
                                  index loadable) {
  static_assert(Pairs * Tokens <= warp_size);
  const index first = warp * Pairs;
  if (first >= gate.count) return;  // the whole warp, and no block waits for it
  dot_products<T, Tokens, 2 * Pairs> dots(x);
#pragma unroll
  for (int p = 0; p < Pairs; ++p) {  // a neuron too many repeats the last one
    const index row = gate.row_at(first + p < gate.count ? first + p : gate.count - 1);
    dots.rows[2 * p] = {gate.weight, row};
    dots.rows[2 * p + 1] = {up.weight, row};
  }
  dots.form(loadable, x.cols);
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const index place = first + lane / Tokens, token = lane % Tokens;
  const float gated = dots.template sum_of_lane<0, 2>(lane), raised = dots.template sum_of_lane<1, 2>(lane);
  if (lane < Pairs * Tokens && place < gate.count && token < x.rows)
    y.data[token * y.stride + place] = activated(act, gated) * raised;
}

/// The same, a warp for each `Pairs` neurons.
template <class T, int Tokens, int Pairs>
__global__ void __launch_bounds__(product_threads, product_blocks<Tokens>)
    gated_rows_kernel(device_rows y, const_device_rows x, restricted_weight gate, restricted_weight up,
                      activation act, index loadable) {
  wait_for_earlier_kernels();
  gate_rows_of_warp<T, Tokens, Pairs>(warp_of_grid(), y, x, gate, up, act, loadable);
}

/// y[i] = factors[n] (x . w[n]) for the i-th chosen row n; one token, the `Rows` rows of warp `warp`.
template <class T, int Rows>
__device__ void scale_rows_of_warp(index warp, const device_rows& y, const const_device_rows& x,
                                   const restricted_weight& w, const float* factors, index loadable) {
  const index first = warp * Rows;
  if (first >= w.count) return;  // the whole warp, and no block waits for it
  dot_products<T, 1, Rows> dots(x);
#pragma unroll
  for (int r = 0; r < Rows; ++r)  // a row too many repeats the last one
    dots.rows[r] = {w.weight, w.row_at(first + r < w.count ? first + r : w.count - 1)};
  dots.form(loadable, x.cols);
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const index place = first + lane;
  const float sum = dots.sum_of_lane(lane);
  if (lane < Rows && place < w.count) y.data[place] = factors[w.row_at(place)] * sum;
}

/// The same, a warp for each `Rows` rows.
template <class T, int Rows>
__global__ void __launch_bounds__(product_threads, product_blocks<1>)
    scaled_rows_kernel(device_rows y, const_device_rows x, restricted_weight w, const float* factors,
                       index loadable) {
  wait_for_earlier_kernels();
  scale_rows_of_warp<T, Rows>(warp_of_grid(), y, x, w, factors, loadable);
}

/// Calls `body` with the smallest number of tokens, 1, 2, 4 or 8, that kernels are made for and that is
/// enough, as a std::integral_constant.
template <class Body>
void visit_tokens(index tokens, Body&& body) {
  assert(tokens >= 1 && tokens <= largest_decode_batch);
  if (tokens == 1) return body(std::integral_constant<int, 1>{});
  if (tokens == 2) return body(std::integral_constant<int, 2>{});
  if (tokens <= 4) return body(std::integral_constant<int, 4>{});
  return body(std::integral_constant<int, largest_decode_batch>{});
}

/// The first columns that are loaded several at a time: none where a row begins elsewhere than at 16 bytes.
template <class T>
index loadable_columns(const const_device_rows& x, const stored_view<device_space>& w) {
  constexpr index size = weight_row<T>::size;
  return has_aligned_rows(x) && has_aligned_rows(w) ? x.cols / size * size : 0;
}

inline dim3 product_grid(index rows, index rows_of_one_warp) {
  return dim3(static_cast<unsigned>(ceil_div(rows, rows_of_one_warp * product_warps)));
}

using projections = std::span<const projection<device_space>>;

/// As multiply_rows(), of rows read as weight_row<T> reads them.
template <class T>
void multiply_rows_of(const context& on, projections which, const_device_rows x, product_mode mode) {
  assert(std::ssize(which) <= row_products::most);
  row_products products{};
  index longest = 0, all = 0;  // rows of weights
  for (std::size_t i = 0; i < which.size(); ++i) {
    const auto& [y, w, bias] = which[i];
    assert(y.rows == x.rows && y.cols == w.rows && x.cols == w.cols);
    products.of[i] = {y, w, bias.data, loadable_columns<T>(x, w)};
    longest = std::max(longest, w.rows);
    all += w.rows;
  }
  if (x.rows == 0) return;
  constexpr index enough_warps = 8;  // of each processor, to keep the memory busy
  visit_tokens(x.rows, [&](auto tokens) {
    constexpr int many = rows_of_warp<tokens>;
    const bool few = all < many * enough_warps * on.processors;
    dim3 grid = product_grid(longest, few ? 1 : many);
    grid.y = static_cast<unsigned>(which.size());
    launch_early(on, grid, dim3(product_threads),
                 few ? multiply_rows_kernel<T, tokens, 1> : multiply_rows_kernel<T, tokens, many>, products,
                 x, mode);
  });
}

/// Of each projection y[t, i] = x[t] . w[i] + bias[i], or added to it; row_products::most of them at most,
/// whose weights are of one type, of at most largest_decode_batch rows x.
inline void multiply_rows(const context& on, projections which, const_device_rows x,
                          product_mode mode = product_mode::replace) {
  visit_on_device(which.front().w.type, [&]<class T>() { multiply_rows_of<T>(on, which, x, mode); });
}

/// y = x W^T by the upper plane of w alone.
inline void multiply_coarse_rows(const context& on, device_rows y, const_device_rows x,
                                 const stored_view<device_space>& w) {
  const projection<device_space> one{y, w, {}};
  visit_planes_on_device(w.type, [&]<class Q>() {
    multiply_rows_of<coarse<Q>>(on, {&one, 1}, x, product_mode::replace);
  });
}

/// y[t, i] = act(x[t] . gate[n]) * (x[t] . up[n]) for the i-th selected neuron n; y [T, selected], x [T, D],
/// gate and up [N, D], stored alike, T at most largest_decode_batch.
inline void gated_rows(const context& on, device_rows y, const_device_rows x,
                       const stored_view<device_space>& gate, const stored_view<device_space>& up,
                       activation act, const neurons& selection) {
  assert(y.rows == x.rows && y.cols == count_of(selection, gate.rows));
  assert(gate.type == up.type && gate.rows == up.rows && gate.cols == x.cols && up.cols == x.cols);
  if (y.rows == 0 || y.cols == 0) return;
  visit_on_device(gate.type, [&]<class T>() {
    visit_tokens(x.rows, [&](auto tokens) {
      constexpr int pairs = rows_of_warp<tokens> / 2;
      const index loadable = std::min(loadable_columns<T>(x, gate), loadable_columns<T>(x, up));
      launch_early(on, product_grid(y.cols, pairs), dim3(product_threads),
                   gated_rows_kernel<T, tokens, pairs>, y, x, restricted_weight(gate, selection),
                   restricted_weight(up, selection), act, loadable);
    });
  });
}

/// y[i] = factors[n] (x . w[n]), n = chosen[i]; x [1, D], w [N, D].
inline void scaled_rows(const context& on, device_rows y, const_device_rows x,
                        const stored_view<device_space>& w, vector_view<const float, device_space> factors,
                        index_view<device_space> chosen) {
  if (chosen.size == 0) return;
  visit_on_device(w.type, [&]<class T>() {
    constexpr int rows = rows_of_warp<1>;
    launch_early(on, product_grid(chosen.size, rows), dim3(product_threads), scaled_rows_kernel<T, rows>, y,
                 x, restricted_weight(w, chosen), factors.data, loadable_columns<T>(x, w));
  });
}

}  // namespace corematching::cuda::detail

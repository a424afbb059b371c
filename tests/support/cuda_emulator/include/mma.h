// SPDX-License-Identifier: Apache-2.0
// Stands in for the header of the CUDA toolkit: tiles of 16 x 16 x 16 with sums in binary32. Every lane holds
// all of the factors' tiles, and 8 consecutive elements of a sum's row.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment;

template <class Use, class T, class Layout>
struct factor_tile {
  static constexpr int num_elements = 256;
  static constexpr bool by_rows = std::is_same_v<Layout, row_major>;
  T x[num_elements];  // row-major
};
template <class T, class Layout>
struct fragment<matrix_a, 16, 16, 16, T, Layout> : factor_tile<matrix_a, T, Layout> {};
template <class T, class Layout>
struct fragment<matrix_b, 16, 16, 16, T, Layout> : factor_tile<matrix_b, T, Layout> {};

template <>
struct fragment<accumulator, 16, 16, 16, float> {
  static constexpr int num_elements = 8;
  float x[num_elements];
};
namespace detail {

using sums = fragment<accumulator, 16, 16, 16, float>;

/// Row and first column of the sums that the current lane holds.
inline int row_of_lane() {
  return cuda_emulator::detail::lane() / 2;
}
inline int column_of_lane() {
  return cuda_emulator::detail::lane() % 2 * 8;
}

/// The device wants 16-byte rows from 32-byte addresses; memory that is not fails here too.
template <class T>
void check_address(const T* at, unsigned stride) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(at) % 32 == 0 && stride * sizeof(T) % 16 == 0;
  if (!aligned)
    throw cuda_emulator::kernel_error("a tile of nvcuda::wmma is not aligned to 32 bytes, or its rows to 16");
}

inline unsigned place(int row, int column, unsigned stride, bool by_rows) {
  return by_rows ? static_cast<unsigned>(row) * stride + static_cast<unsigned>(column)
                 : static_cast<unsigned>(column) * stride + static_cast<unsigned>(row);
}

}  // namespace detail

template <class Use, class T, class Layout>
void fill_fragment(fragment<Use, 16, 16, 16, T, Layout>& tile, std::type_identity_t<T> value) {
  for (T& each : tile.x) each = value;
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& tile, const std::type_identity_t<T>* from,
                      unsigned stride, const std::source_location& at = std::source_location::current()) {
  __syncwarp(0xffffffffu, at);
  detail::check_address(from, stride);
  for (int i = 0; i < 256; ++i) tile.x[i] = from[detail::place(i / 16, i % 16, stride, tile.by_rows)];
}

inline void load_matrix_sync(detail::sums& tile, const float* from, unsigned stride, layout_t layout,
                             const std::source_location& at = std::source_location::current()) {
  __syncwarp(0xffffffffu, at);
  detail::check_address(from, stride);
  const int row = detail::row_of_lane(), column = detail::column_of_lane();
  for (int i = 0; i < 8; ++i)
    tile.x[i] = from[detail::place(row, column + i, stride, layout == mem_row_major)];
}

inline void store_matrix_sync(float* to, const detail::sums& tile, unsigned stride, layout_t layout,
                              const std::source_location& at = std::source_location::current()) {
  __syncwarp(0xffffffffu, at);
  detail::check_address(to, stride);
  const int row = detail::row_of_lane(), column = detail::column_of_lane();
  for (int i = 0; i < 8; ++i) to[detail::place(row, column + i, stride, layout == mem_row_major)] = tile.x[i];
}

/// result = a b + c; the sums may be the same object.
template <class T, class LayoutA, class LayoutB>
void mma_sync(detail::sums& result, const fragment<matrix_a, 16, 16, 16, T, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, T, LayoutB>& b, const detail::sums& c, bool = false,
              const std::source_location& at = std::source_location::current()) {
  __syncwarp(0xffffffffu, at);
  const int row = detail::row_of_lane(), column = detail::column_of_lane();
  for (int i = 0; i < 8; ++i) {
    float sum = c.x[i];
    for (int k = 0; k < 16; ++k)
      sum += static_cast<float>(a.x[row * 16 + k]) * static_cast<float>(b.x[k * 16 + column + i]);
    result.x[i] = sum;
  }
}

}  // namespace nvcuda::wmma

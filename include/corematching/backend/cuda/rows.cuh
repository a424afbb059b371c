// SPDX-License-Identifier: Apache-2.0
// Rows of matrices and caches moved, converted and cleared. Copies take rows as bytes, 16 at a time where
// addresses and lengths allow, else 4 or 2; conversions take as many elements as 16 stored bytes hold.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/later_rows.cuh"
#include "corematching/backend/cuda/weight_rows.cuh"
#include "corematching/core/dtype.hpp"
#include "corematching/core/elements.cuh"
#include "corematching/core/error.hpp"
#include "corematching/core/launch.cuh"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

inline constexpr int row_threads = 128;
inline constexpr int units_in_flight = 4;  // of a thread that copies

/// A block for each row and each part of `per_block` of its `columns`; rows go to x, whose side is unlimited.
inline dim3 row_grid(index rows, index columns, index per_block) {
  return dim3(static_cast<unsigned>(rows),
              static_cast<unsigned>(std::min(ceil_div(columns, per_block), most_blocks_y)));
}

/// to[i] = from[rows[i]], rows of `units`; `to` and `from` do not overlap.
template <class Unit>
__global__ void __launch_bounds__(row_threads)
    copy_rows(std::byte* to, index to_bytes, const std::byte* from, index from_bytes,
              const std::int32_t* rows, index units) {
  constexpr index span = index{row_threads} * units_in_flight;
  const index row = blockIdx.x;
  auto* target = reinterpret_cast<Unit*>(to + row * to_bytes);
  const auto* source = reinterpret_cast<const Unit*>(from + rows[row] * from_bytes);
  for (index first = blockIdx.y * span + threadIdx.x; first < units; first += gridDim.y * span) {
    Unit moved[units_in_flight];
#pragma unroll
    for (int i = 0; i < units_in_flight; ++i)
      if (first + i * row_threads < units) moved[i] = source[first + i * row_threads];
#pragma unroll
    for (int i = 0; i < units_in_flight; ++i)
      if (first + i * row_threads < units) target[first + i * row_threads] = moved[i];
  }
}

inline constexpr int slice_threads = 256;
inline constexpr int slice_bytes = 128;
inline constexpr int rows_in_flight = 4;  // of a thread

/// The same within one matrix. A block moves a slice of the columns, its threads many rows at a time; before
/// they write, all of them have read. No row is read after it was written, since rows[i] >= i.
template <class Unit>
__global__ void __launch_bounds__(slice_threads)
    compact_rows(std::byte* data, index row_bytes, const std::int32_t* rows, index count, index units) {
  constexpr int slice = slice_bytes / static_cast<int>(sizeof(Unit)), step = slice_threads / slice;
  const index unit = index{blockIdx.x} * slice + static_cast<int>(threadIdx.x) % slice;
  const int own = static_cast<int>(threadIdx.x) / slice;
  for (index first = 0; first < count; first += step * rows_in_flight) {
    Unit moved[rows_in_flight];
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) {
      const index row = first + own + i * step;
      if (row < count && unit < units)
        moved[i] = reinterpret_cast<const Unit*>(data + rows[row] * row_bytes)[unit];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) {
      const index row = first + own + i * step;
      if (row < count && unit < units) reinterpret_cast<Unit*>(data + row * row_bytes)[unit] = moved[i];
    }
  }
}

/// The rows that are listed become 0.
template <class Unit>
__global__ void __launch_bounds__(row_threads)
    clear_rows(std::byte* data, index row_bytes, const std::int32_t* rows, index units) {
  auto* row = reinterpret_cast<Unit*>(data + rows[blockIdx.x] * row_bytes);
  for (index u = index{blockIdx.y} * row_threads + threadIdx.x; u < units; u += gridDim.y * row_threads)
    row[u] = Unit{};
}

/// Calls body.operator()<Unit>() with the widest type that addresses and lengths are multiples of.
/// `addresses`: those, or-ed together.
template <class Body>
void with_unit(std::uintptr_t addresses, Body&& body) {
  if (addresses % 16 == 0) return body.template operator()<uint4>();
  if (addresses % 4 == 0) return body.template operator()<std::uint32_t>();
  body.template operator()<std::uint16_t>();
}

template <class View>
std::uintptr_t address_bits(const View& view) {
  return reinterpret_cast<std::uintptr_t>(view.data) | static_cast<std::uintptr_t>(view.row_bytes) |
         static_cast<std::uintptr_t>(stored_bytes(view.type, 1, view.cols));
}

/// Whether the rows of two matrices share memory.
inline bool overlap_in_memory(const stored_view<device_space>& a, const stored_view<device_space>& b) {
  const auto begin = [](const auto& view) { return reinterpret_cast<std::uintptr_t>(view.data); };
  const auto end = [&](const auto& view) {
    return begin(view) + static_cast<std::uintptr_t>(view.rows * view.row_bytes);
  };
  return a.rows > 0 && b.rows > 0 && begin(a) < end(b) && begin(b) < end(a);
}

/// y[i] = x[rows[i]] for rows of one type; rows ascending, y may be x (its first rows). Matrices of floats
/// are such views, too.
inline void gather_rows(const context& on, mutable_stored_view<device_space> y, stored_view<device_space> x,
                        index_view<device_space> rows) {
  assert(y.rows == rows.size && y.cols == x.cols && y.type == x.type);
  const auto bytes = static_cast<index>(stored_bytes(x.type, 1, x.cols));
  const bool in_place = overlap_in_memory(y, x);
  require(!in_place || (y.data == x.data && y.row_bytes == x.row_bytes),
          "rows can be gathered in place or into other memory, not into a part of their own");
  with_unit(address_bits(y) | address_bits(x), [&]<class Unit>() {
    const index units = bytes / index{sizeof(Unit)};
    if (in_place)
      return launch(on.stream,
                    dim3(static_cast<unsigned>(ceil_div(units, slice_bytes / index{sizeof(Unit)})),
                         rows.size == 0 ? 0 : 1),
                    dim3(slice_threads), compact_rows<Unit>, y.data, y.row_bytes, rows.data, rows.size,
                    units);
    launch(on.stream, row_grid(rows.size, units, row_threads * units_in_flight), dim3(row_threads),
           copy_rows<Unit>, y.data, y.row_bytes, x.data, x.row_bytes, rows.data, units);
  });
}

/// x[row] = 0 for the listed rows.
inline void zero_rows(const context& on, mutable_stored_view<device_space> x, index_view<device_space> rows) {
  with_unit(address_bits(x), [&]<class Unit>() {
    const auto units = static_cast<index>(stored_bytes(x.type, 1, x.cols) / sizeof(Unit));
    launch(on.stream, row_grid(rows.size, units, row_threads), dim3(row_threads), clear_rows<Unit>, x.data,
           x.row_bytes, rows.data, units);
  });
}

/// y[i] = x[rows[i]], or x[first + i] where `rows` is null, in binary32 or rounded to `To`. A thread takes
/// `Group` elements at a time: 1, or, where all rows are aligned, as many as one load brings.
template <class To, class T, int Group>
__global__ void __launch_bounds__(row_threads)
    widen_rows(To* y, index stride, stored_view<device_space> x, const std::int32_t* rows, index first) {
  wait_for_earlier_kernels();
  const index row = blockIdx.x;
  To* target = y + row * stride;
  const weight_row<T> source(x, rows == nullptr ? first + row : rows[row]);
  for (index j = (blockIdx.y * index{row_threads} + threadIdx.x) * Group; j < x.cols;
       j += index{gridDim.y} * row_threads * Group) {
    if (Group > 1 && j + Group <= x.cols) {
      float values[weight_row<T>::size];
      weight_row<T>::widen(source.load(j), values);
#pragma unroll
      for (int i = 0; i < weight_row<T>::size; i += 4) store_four(values + i, target + j + i);
    } else {
      for (index i = j; i < x.cols && i < j + Group; ++i) target[i] = narrowed<To>(source.at(i));
    }
  }
}

/// Rows to be stored, and where.
struct stored_rows {
  std::byte* to;
  const float* from;
  index stride;
};

/// to[i] = from[i] rounded to T, or so many rows later; threads and groups as above. The grid's z chooses
/// between two matrices.
template <class T, int Group>
__global__ void __launch_bounds__(row_threads)
    narrow_rows(stored_rows one, stored_rows other, index row_bytes, later_rows later, index cols) {
  wait_for_earlier_kernels();
  const stored_rows rows = blockIdx.z == 0 ? one : other;  // a reference would be to a copy in local memory
  T* target = reinterpret_cast<T*>(rows.to + (blockIdx.x + index{later.count()}) * row_bytes);
  const float* source = rows.from + blockIdx.x * rows.stride;
  for (index j = (blockIdx.y * index{row_threads} + threadIdx.x) * Group; j < cols;
       j += index{gridDim.y} * row_threads * Group) {
    if (Group > 1 && j + Group <= cols) {
      union {
        uint4 whole;
        T parts[per_load<T>];
      } stored;
#pragma unroll
      for (int i = 0; i < per_load<T>; i += 4) {
        float values[4];
        load_widened(source + j + i, values);
#pragma unroll
        for (int k = 0; k < 4; ++k) stored.parts[i + k] = narrowed<T>(values[k]);
      }
      *reinterpret_cast<uint4*>(target + j) = stored.whole;
    } else {
      for (index i = j; i < cols && i < j + Group; ++i) target[i] = narrowed<T>(source[i]);
    }
  }
}

/// Whether every row of both begins at a multiple of 16 bytes.
inline bool rows_are_aligned(const stored_view<device_space>& a, const stored_view<device_space>& b) {
  return is_aligned(a.data) && is_aligned(b.data) && a.row_bytes % 16 == 0 && b.row_bytes % 16 == 0;
}

template <class To, class T>
void widen_as(const context& on, matrix_view<To, device_space> y, stored_view<device_space> x,
              const std::int32_t* rows, index first) {
  constexpr int size = weight_row<T>::size;
  const bool aligned = is_aligned(y.data) && y.stride * index{sizeof(To)} % 16 == 0 && has_aligned_rows(x);
  launch_early(on, row_grid(y.rows, x.cols, row_threads * (aligned ? size : 1)), dim3(row_threads),
               aligned ? widen_rows<To, T, size> : widen_rows<To, T, 1>, y.data, y.stride, x, rows, first);
}

/// y[i] = x[rows[i]], or x[i] where `rows` is null.
inline void widen(const context& on, matrix_view<float, device_space> y, stored_view<device_space> x,
                  const std::int32_t* rows) {
  assert(y.cols == x.cols);
  visit_on_device(x.type, [&]<class T>() { widen_as<float, T>(on, y, x, rows, 0); });
}

/// y[i] = x[rows[i]], or x[first + i] where `rows` is null, x in two planes, put together.
inline void merge_rows(const context& on, mutable_stored_view<device_space> y, stored_view<device_space> x,
                       const std::int32_t* rows, index first) {
  assert(y.cols == x.cols && y.type == whole_of(x.type));
  visit_planes_on_device(x.type, [&]<class Q>() {
    using whole = typename Q::whole;
    const matrix_view<whole, device_space> to{reinterpret_cast<whole*>(y.data), y.rows, y.cols,
                                              y.row_bytes / index{sizeof(whole)}};
    widen_as<whole, Q>(on, to, x, rows, first);
  });
}

/// y[i] = table[ids[i]]
inline void embed(const context& on, matrix_view<float, device_space> y, stored_view<device_space> table,
                  index_view<device_space> ids) {
  assert(y.rows == ids.size);
  if (ids.size > 0) widen(on, y, table, ids.data);
}

/// y = x, exactly
inline void load_rows(const context& on, matrix_view<float, device_space> y, stored_view<device_space> x) {
  assert(y.rows == x.rows);
  widen(on, y, x, nullptr);
}

/// y = x, rounded to the type of y; or so many rows later. Likewise `other_y`,
/// whose rows are as many, as long and as far apart, where there are some.
inline void store_rows(const context& on, mutable_stored_view<device_space> y,
                       matrix_view<const float, device_space> x, later_rows later = {},
                       mutable_stored_view<device_space> other_y = {},
                       matrix_view<const float, device_space> other_x = {}) {
  assert(y.rows == x.rows && y.cols == x.cols);
  const bool two = other_y.rows > 0;
  assert(!two || (other_y.type == y.type && other_y.rows == y.rows && other_y.row_bytes == y.row_bytes &&
                  other_x.rows == x.rows && other_x.cols == x.cols));
  visit_elements(y.type, [&]<class T>() {
    const bool aligned = rows_are_aligned(y, x) && (!two || rows_are_aligned(other_y, other_x));
    const index group = aligned ? per_load<T> : 1;
    dim3 grid = row_grid(x.rows, x.cols, row_threads * group);
    if (two) grid.z = 2;
    launch_early(on, grid, dim3(row_threads), aligned ? narrow_rows<T, per_load<T>> : narrow_rows<T, 1>,
                 stored_rows{y.data, x.data, x.stride},
                 stored_rows{other_y.data, other_x.data, other_x.stride}, y.row_bytes, later, x.cols);
  });
}

}  // namespace corematching::cuda::detail

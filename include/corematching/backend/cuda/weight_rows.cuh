// SPDX-License-Identifier: Apache-2.0
// Rows of weights as the lanes of a warp read them, whatever they are stored as: several elements with one
// load, or a single one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "corematching/core/dtype.hpp"
#include "corematching/core/elements.cuh"
#include "corematching/core/error.hpp"
#include "corematching/core/type_list.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

template <class T>
using is_on_device = std::bool_constant<element_format<T> || number_plane_format<T>>;
/// The formats in which a device stores weights and multiplies by them.
using device_formats = filtered<formats, is_on_device>;

/// Throws `error` for a type that is none of these.
inline void require_on_device(dtype type) {
  const bool known = is_element(type) || (has_planes(type) && is_element(whole_of(type)));
  require(known, "the CUDA backend stores weights as f32, f16, bf16 or f16_planes, not as ", name_of(type));
}

/// Calls body.operator()<T>() with the format of that number.
template <class Body>
decltype(auto) visit_on_device(dtype type, Body&& body) {
  require_on_device(type);
  return corematching::detail::visit_one(device_formats(), type, body);
}

/// The same for formats of two planes.
template <class Body>
decltype(auto) visit_planes_on_device(dtype type, Body&& body) {
  require_planes(type);
  require_on_device(type);
  return corematching::detail::visit_one(filtered<plane_formats, is_on_device>(), type, body);
}

/// What 16 loaded bytes hold.
template <class T>
__device__ inline void widen_loaded(const uint4& loaded, float (&to)[per_load<T>]) {
  union {
    uint4 whole;
    T parts[per_load<T>];
  } bits{loaded};
#pragma unroll
  for (int i = 0; i < per_load<T>; ++i) to[i] = widened(bits.parts[i]);
}

/// One row: what a load brings, how many elements that are, and how they are widened.
template <class T>
struct weight_row {
  using loaded = uint4;
  static constexpr int size = per_load<T>;
  const T* data;

  weight_row() = default;
  __device__ weight_row(const stored_view<device_space>& w, index i)
      : data(reinterpret_cast<const T*>(w.data + i * w.row_bytes)) {}

  /// From a column that is a multiple of `size` on, in a row whose columns can be loaded.
  __device__ loaded load(index column) const { return *reinterpret_cast<const uint4*>(data + column); }
  __device__ static void widen(const loaded& from, float (&to)[size]) { widen_loaded<T>(from, to); }
  __device__ float at(index column) const { return widened(data[column]); }
};

/// Bytes from a row of a plane to the next one.
__host__ __device__ inline index plane_pitch(const stored_view<device_space>& w) {
  return w.row_bytes / 2;
}

/// Bytes of one plane of a row.
__device__ inline const std::uint8_t* upper_bytes(const stored_view<device_space>& w, index i) {
  return reinterpret_cast<const std::uint8_t*>(w.data) + i * plane_pitch(w);
}
__device__ inline const std::uint8_t* lower_bytes(const stored_view<device_space>& w, index i) {
  return upper_bytes(w, w.rows + i);
}

/// As many bytes as Whole has, one by one.
template <class Whole>
union loaded_bytes {
  Whole whole;
  std::uint8_t parts[sizeof(Whole)];
};

template <number_plane_format Q>
struct weight_row<Q> {
  struct loaded {
    uint2 upper, lower;
  };
  static constexpr int size = sizeof(uint2);
  const std::uint8_t* upper;
  const std::uint8_t* lower;

  weight_row() = default;
  __device__ weight_row(const stored_view<device_space>& w, index i)
      : upper(upper_bytes(w, i)), lower(lower_bytes(w, i)) {}

  __device__ loaded load(index column) const {
    return {*reinterpret_cast<const uint2*>(upper + column), *reinterpret_cast<const uint2*>(lower + column)};
  }
  __device__ static void widen(const loaded& from, float (&to)[size]) {
    const loaded_bytes<uint2> uppers{from.upper}, lowers{from.lower};
#pragma unroll
    for (int i = 0; i < size; ++i) to[i] = widened(Q::merged(uppers.parts[i], lowers.parts[i]));
  }
  __device__ float at(index column) const {
    return widened(Q::merged(upper[column], lower[column]));
  }
};

/// The upper plane of a format by itself.
template <number_plane_format Q>
struct coarse {};

template <class Q>
struct weight_row<coarse<Q>> {
  using loaded = uint4;
  static constexpr int size = sizeof(uint4);
  const std::uint8_t* upper;

  weight_row() = default;
  __device__ weight_row(const stored_view<device_space>& w, index i) : upper(upper_bytes(w, i)) {}

  __device__ loaded load(index column) const { return *reinterpret_cast<const uint4*>(upper + column); }
  __device__ static void widen(const loaded& from, float (&to)[size]) {
    const loaded_bytes<uint4> uppers{from};
#pragma unroll
    for (int i = 0; i < size; ++i) to[i] = widened(Q::middle(uppers.parts[i]));
  }
  __device__ float at(index column) const {
    return widened(Q::middle(upper[column]));
  }
};

/// Whether every row, in both planes where there are two, begins at a multiple of 16 bytes; of activations,
/// too, which are such views.
inline bool has_aligned_rows(const stored_view<device_space>& matrix) {
  if (!is_aligned(matrix.data)) return false;
  if (has_planes(matrix.type)) return plane_pitch(matrix) % 16 == 0;
  return matrix.row_bytes % 16 == 0 || matrix.rows <= 1;
}

}  // namespace corematching::cuda::detail

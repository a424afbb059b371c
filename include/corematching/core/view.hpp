// SPDX-License-Identifier: Apache-2.0
// Non-owning views. The memory space is part of the type: a host pointer that reaches a device op does not
// compile.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "corematching/core/config.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/index.hpp"

namespace corematching {

struct host_space {};
struct device_space {};

/// `size` consecutive elements.
template <class T, class Space = host_space>
struct vector_view {
  T* data = nullptr;
  index size = 0;

  constexpr operator vector_view<const T, Space>() const requires(!std::is_const_v<T>) {
    return {data, size};
  }
  constexpr bool empty() const { return size == 0; }
  constexpr T& operator[](index i) const requires std::is_same_v<Space, host_space> {
    assert(i >= 0 && i < size);
    return data[i];
  }
  constexpr T* begin() const requires std::is_same_v<Space, host_space> { return data; }
  constexpr T* end() const requires std::is_same_v<Space, host_space> { return data + size; }
};

/// Row or neuron numbers, ascending wherever they stand for a set.
template <class Space = host_space>
using index_view = vector_view<const std::int32_t, Space>;

/// A matrix [rows, cols] in its storage type, known at run time, row-major, rows `row_bytes` apart: weights,
/// or keys and values of a cache. `Byte` is std::byte where it may be written, otherwise const std::byte.
template <class Byte, class Space>
struct basic_stored_view {
  Byte* data = nullptr;
  dtype type = dtype::f32;
  index rows = 0;
  index cols = 0;
  index row_bytes = 0;

  constexpr operator basic_stored_view<const std::byte, Space>() const requires(!std::is_const_v<Byte>) {
    return {data, type, rows, cols, row_bytes};
  }
  constexpr basic_stored_view middle_rows(index first, index count) const {
    assert(first >= 0 && count >= 0 && first + count <= rows);
    return {data + first * row_bytes, type, count, cols, row_bytes};
  }
};

template <class Space = host_space>
using stored_view = basic_stored_view<const std::byte, Space>;
/// Of no block format: rows are stored one by one.
template <class Space = host_space>
using mutable_stored_view = basic_stored_view<std::byte, Space>;

/// Row-major [rows, cols]; consecutive rows lie `stride` elements apart, `stride >= cols`.
template <class T, class Space = host_space>
struct matrix_view {
  T* data = nullptr;
  index rows = 0;
  index cols = 0;
  index stride = 0;

  constexpr operator matrix_view<const T, Space>() const requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
  /// The same elements where their type is known at run time only.
  constexpr operator stored_view<Space>() const {
    return {reinterpret_cast<const std::byte*>(data), dtype_of<std::remove_const_t<T>>, rows, cols,
            stride * index{sizeof(T)}};
  }
  constexpr operator mutable_stored_view<Space>() const requires(!std::is_const_v<T>) {
    return {reinterpret_cast<std::byte*>(data), dtype_of<T>, rows, cols, stride * index{sizeof(T)}};
  }
  constexpr vector_view<T, Space> row(index i) const {
    assert(i >= 0 && i < rows);
    return {data + i * stride, cols};
  }
  constexpr matrix_view middle_rows(index first, index count) const {
    assert(first >= 0 && count >= 0 && first + count <= rows);
    return {data + first * stride, count, cols, stride};
  }
  constexpr matrix_view top_rows(index count) const { return middle_rows(0, count); }
  constexpr matrix_view left_cols(index count) const {
    assert(count >= 0 && count <= cols);
    return {data, rows, count, stride};
  }
};

/// Bytes of a matrix [rows, cols] whose rows lie without gaps.
constexpr std::uint64_t stored_bytes(dtype type, index rows, index cols) {
  return static_cast<std::uint64_t>(rows) * bytes_of(type, static_cast<std::size_t>(cols));
}

template <class Space>
constexpr std::uint64_t stored_bytes(const stored_view<Space>& weight) {
  return stored_bytes(weight.type, weight.rows, weight.cols);
}

/// Row `i` of a host weight as elements of type `T`, which must be the type it is stored in.
template <class T>
const T* typed_row(const stored_view<host_space>& weight, index i) {
  assert(dtype_of<T> == weight.type);
  return reinterpret_cast<const T*>(weight.data + i * weight.row_bytes);
}

}  // namespace corematching

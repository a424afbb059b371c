// SPDX-License-Identifier: Apache-2.0
// Binary32 values between host memory and a backend's, whatever type the backend computes with.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/backend/backend.hpp"

namespace corematching {

namespace detail {

template <class T>
T narrowed(float value) {
  if constexpr (std::is_same_v<T, f16>) return to_f16(value);
  if constexpr (std::is_same_v<T, bf16>) return to_bf16(value);
}

}  // namespace detail

/// Row numbers, positions or ids of host memory in the backend's.
template <backend B>
auto device_indices(B& be, index_view<> from) {
  auto placed = be.template allocate<std::int32_t>(from.size);
  be.upload(placed.view(), from);
  return placed;
}

/// to = from, `from` holding rows * cols values, row by row; the rows of `to` lie without gaps.
template <backend B>
void upload_values(B& be, matrix_view<typename B::value_type, typename B::space> to,
                   vector_view<const float> from) {
  using value = typename B::value_type;
  assert(to.stride == to.cols && from.size == to.rows * to.cols);
  if constexpr (std::is_same_v<value, float>) {
    be.upload(vector_view<float, typename B::space>{to.data, from.size}, from);
  } else {
    std::vector<value> converted;
    converted.reserve(static_cast<std::size_t>(from.size));
    for (const float x : from) converted.push_back(detail::narrowed<value>(x));
    be.upload(vector_view<value, typename B::space>{to.data, from.size}, {converted.data(), from.size});
  }
}

/// Appends the rows of `from` to `to`, without gaps.
template <backend B, class T>
void download_values(B& be, matrix_view<T, typename B::space> from, std::vector<float>& to) {
  using value = std::remove_const_t<T>;
  // Rows without gaps travel together: each transfer from a device waits for all its work.
  const bool whole = from.stride == from.cols && from.rows > 0;
  const index parts = whole ? 1 : from.rows, length = whole ? from.rows * from.cols : from.cols;
  std::size_t end = to.size();
  to.resize(end + static_cast<std::size_t>(parts * length));
  std::vector<value> part;
  if constexpr (!std::is_same_v<value, float>) part.resize(static_cast<std::size_t>(length));
  for (index i = 0; i < parts; ++i, end += static_cast<std::size_t>(length)) {
    const vector_view<const value, typename B::space> stored{from.row(i).data, length};
    if constexpr (std::is_same_v<value, float>) {
      be.download(vector_view<float>{to.data() + end, length}, stored);
    } else {
      be.download(vector_view<value>{part.data(), length}, stored);
      std::ranges::transform(part, to.begin() + static_cast<std::ptrdiff_t>(end),
                             [](value x) { return to_float(x); });
    }
  }
}

}  // namespace corematching

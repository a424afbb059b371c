// SPDX-License-Identifier: Apache-2.0
// Values between host memory and a backend's.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/backend/backend.hpp"

namespace corematching {

/// Row numbers, positions or ids of host memory in the backend's.
template <backend B>
auto device_indices(B& be, index_view<> from) {
  auto placed = be.template allocate<std::int32_t>(from.size);
  be.upload(placed.view(), from);
  return placed;
}

/// A vector of the backend's memory in the host's.
template <backend B, class T>
std::vector<std::remove_const_t<T>> host_values(B& be, vector_view<T, typename B::space> from) {
  std::vector<std::remove_const_t<T>> values(static_cast<std::size_t>(from.size));
  be.download(vector_view<std::remove_const_t<T>>{values.data(), from.size}, from);
  return values;
}

/// to = from, `from` holding rows * cols values, row by row; the rows of `to` lie without gaps.
template <backend B>
void upload_values(B& be, matrix_view<float, typename B::space> to, vector_view<const float> from) {
  assert(to.stride == to.cols && from.size == to.rows * to.cols);
  be.upload(vector_view<float, typename B::space>{to.data, from.size}, from);
}

/// Appends the rows of `from` to `to`, without gaps.
template <backend B>
void download_values(B& be, matrix_view<const float, typename B::space> from, std::vector<float>& to) {
  // Rows without gaps travel together: each transfer from a device waits for all its work.
  const bool whole = from.stride == from.cols && from.rows > 0;
  const index parts = whole ? 1 : from.rows, length = whole ? from.rows * from.cols : from.cols;
  std::size_t end = to.size();
  to.resize(end + static_cast<std::size_t>(parts * length));
  for (index i = 0; i < parts; ++i, end += static_cast<std::size_t>(length))
    be.download(vector_view<float>{to.data() + end, length},
                vector_view<const float, typename B::space>{from.row(i).data, length});
}

}  // namespace corematching

// SPDX-License-Identifier: Apache-2.0
// A weight matrix on the device restricted to some of its rows: place i of the restricted matrix is row
// `selection[i]`.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corematching/backend/backend.hpp"
#include "corematching/core/elements.cuh"
#include "corematching/core/view.hpp"

namespace corematching::cuda::detail {

using neurons = neuron_selection<device_space>;
using device_rows = matrix_view<float, device_space>;
using const_device_rows = matrix_view<const float, device_space>;

/// What becomes of a product's earlier content.
enum class product_mode : std::uint8_t { replace, add };

__device__ inline void store_product(product_mode mode, float* to, float product) {
  *to = mode == product_mode::add ? *to + product : product;
}

inline index count_of(const neurons& selection, index all) {
  return selection ? selection->size : all;
}

/// The selected rows of a weight, as a kernel takes them.
struct restricted_weight {
  stored_view<device_space> weight;
  const std::int32_t* chosen = nullptr;  // all rows when null
  index count = 0;

  restricted_weight(const stored_view<device_space>& all, const neurons& selection)
      : restricted_weight(all, selection ? selection->data : nullptr, count_of(selection, all.rows)) {}
  __host__ __device__ restricted_weight(const stored_view<device_space>& all, const std::int32_t* rows,
                                        index rows_count)
      : weight(all), chosen(rows), count(rows_count) {}

  /// The stored row at `place`, which is less than `count`.
  __device__ index row_at(index place) const { return chosen ? index{chosen[place]} : place; }

  template <class T>
  __device__ const T* row(index number) const {
    return reinterpret_cast<const T*>(weight.data + number * weight.row_bytes);
  }
};

}  // namespace corematching::cuda::detail
